-- Returns 1 for each owner whose lease has not ended by the server's clock, 0 for the others.
--
-- KEYS  store, replicas
-- ARGV  store id, owners
if redis.call('HGET', KEYS[1], 'store_id') ~= ARGV[1] then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = {}
for at = 2, #ARGV do
  local ends = redis.call('ZSCORE', KEYS[2], ARGV[at])
  alive[at - 1] = (ends and tonumber(ends) > now) and 1 or 0
end
return alive
