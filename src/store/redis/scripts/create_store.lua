-- Creates the metadata of a store unless there is one, and returns the metadata.
--
-- KEYS  store
-- ARGV  id for a new store, its schema
if redis.call('EXISTS', KEYS[1]) == 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[1], 'store_id', ARGV[1], 'schema', ARGV[2],
    'created', string.format('%.0f', now), 'state', 'making')
end
return redis.call('HMGET', KEYS[1], 'store_id', 'schema', 'created', 'state')
