-- One group of changes: all of them, or none.
--
-- KEYS  marker, ids, open, expiry, subjects, then the record of each row
-- ARGV  store id, '1' when asked again, then for each row: its id, the version it expects (empty:
--       absent), the bytes it puts (empty: removes)
-- Gives 0, or the number of the first row that met something else, and what is there.
--
-- The offsets are those of the record's layout in codec.rs, counted from 1.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end

local again = ARGV[2] == '1'
local rows = #KEYS - 5
local found = {}
for row = 1, rows do
  local old = redis.call('GET', KEYS[5 + row])
  local expect, put = ARGV[3 * row + 1], ARGV[3 * row + 2]
  local fits
  if old then
    fits = expect ~= '' and string.sub(old, 4, 11) == expect
  else
    fits = expect == ''
  end
  if not fits and again then
    fits = (old or '') == put
  end
  if not fits then
    return {row - 1, old}
  end
  found[row] = old
end

-- What the indexes hold of a record: in `open`, with its owner when it is in flight; in `expiry`,
-- its time in the order of numbers; in `subjects`.
local function entries(id, bytes)
  if not bytes then
    return nil, nil, nil, nil
  end
  local state, flags = string.byte(bytes, 2, 3)
  local open, expiry, subject
  if state == 1 or state == 7 or state == 9 then
    open = id .. string.sub(bytes, 120, 135)
  elseif state == 2 or state == 8 then
    open = id
  end
  if flags % 2 == 1 then
    expiry = string.reverse(string.sub(bytes, 12, 19)) .. id
  end
  if flags % 4 >= 2 then
    subject = string.sub(bytes, 20, 35) .. id
  end
  return id, open, expiry, subject
end

local function move(key, was, is)
  if was ~= is then
    if was then
      redis.call('ZREM', key, was)
    end
    if is then
      redis.call('ZADD', key, 0, is)
    end
  end
end

for row = 1, rows do
  local id, put = ARGV[3 * row], ARGV[3 * row + 2]
  local old = found[row]
  if put == '' then
    put = nil
    redis.call('DEL', KEYS[5 + row])
  else
    redis.call('SET', KEYS[5 + row], put)
  end
  local was_id, was_open, was_expiry, was_subject = entries(id, old)
  local is_id, is_open, is_expiry, is_subject = entries(id, put)
  move(KEYS[2], was_id, is_id)
  move(KEYS[3], was_open, is_open)
  move(KEYS[4], was_expiry, is_expiry)
  move(KEYS[5], was_subject, is_subject)
end

-- A change that was there already is written once more, so that replicas are waited for.
if again then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 0
