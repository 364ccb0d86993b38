-- Reads records for one who waits for replicas afterwards. Since Redis 7.2 `WAIT` counts only up to the
-- last write of its own connection, so there has to be one after what others wrote.
--
-- KEYS  marker, records; some hundreds at most, for Lua's stack has an end
-- ARGV  store id
local found = redis.call('MGET', unpack(KEYS))
if found[1] == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1])
end
return found
