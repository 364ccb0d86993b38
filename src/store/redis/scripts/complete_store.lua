-- Marks a store as complete: every shard has its marker.
--
-- KEYS  store
-- ARGV  store id
if redis.call('HGET', KEYS[1], 'store_id') ~= ARGV[1] then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end
redis.call('HSET', KEYS[1], 'state', 'ready')
return 0
