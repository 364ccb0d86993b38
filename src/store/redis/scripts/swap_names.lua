-- Replaces the names of the keys if their version is the expected one; returns 1 if they were replaced.
--
-- KEYS  store, names
-- ARGV  store id, expected version (0 if there are no names), names
if redis.call('HGET', KEYS[1], 'store_id') ~= ARGV[1] then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end
local names = redis.call('GET', KEYS[2])
local version = names and tonumber(string.match(names, '^(%d+) ')) or 0
if version ~= tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[2], string.format('%.0f', version + 1) .. ' ' .. ARGV[3])
return 1
