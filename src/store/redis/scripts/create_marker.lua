-- Gives an empty shard its marker, and returns the marker that the shard has.
--
-- KEYS  marker, ids
-- ARGV  store id
local found = redis.call('GET', KEYS[1])
if found then
  return found
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
