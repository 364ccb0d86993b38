-- Renews the lease of a process by the server's clock, and returns that clock in milliseconds.
--
-- KEYS  store, replicas
-- ARGV  store id, owner, length of the lease, time after which ended leases are removed
if redis.call('HGET', KEYS[1], 'store_id') ~= ARGV[1] then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[4]))
return now
