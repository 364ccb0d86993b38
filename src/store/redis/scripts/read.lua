-- Reads records and writes the marker again, for a caller that waits for replicas afterwards. Since
-- Redis 7.2 `WAIT` counts replicas only up to the last write of its own connection, and the records
-- may have been written on another one.
--
-- KEYS  marker, records; some hundreds at most, because Lua's stack is limited
-- ARGV  store id
local found = redis.call('MGET', unpack(KEYS))
if found[1] == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
end
return found
