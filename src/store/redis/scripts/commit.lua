-- Groups of changes: of each group all of them, or none.
--
-- KEYS  ids, open, expiry, subjects, marker, then the record of each row of each group
-- ARGV  store id, 1 where replicas are waited for, then for each group: how many rows it has, below
--       zero when it is asked again; and for each row: its id, the version it expects (empty: absent),
--       the bytes it puts (empty: removes)
-- Gives 0 when all groups were made; else for each group 0, or the number of the first row that met
-- something else and what is there.
--
-- No two groups name the same record. What is read and written goes to the server in few commands,
-- because most of a script's time is spent in calling them. The offsets are those of the record's
-- layout in codec/mod.rs, counted from 1.

-- The most arguments of one command: Lua's stack has an end.
local MOST = 1000

local found = {}
for first = 5, #KEYS, MOST do
  local part = redis.call('MGET', unpack(KEYS, first, math.min(first + MOST - 1, #KEYS)))
  for at = 1, #part do
    found[first + at - 1] = part[at]
  end
end
if found[5] ~= ARGV[1] then
  return redis.error_reply('EMPTIED the marker is not this store\'s')
end

local byte, sub = string.byte, string.sub

-- What is to be done: the arguments of each command, and how many there are.
local set, sets, del, dels = {}, 0, {}, 0
local add, adds = {{}, {}, {}, {}}, {0, 0, 0, 0}
local remove, removes = {{}, {}, {}, {}}, {0, 0, 0, 0}

-- The index of this number held one member for a record and is to hold another.
local function move(index, was, is)
  if was == is then
    return
  end
  if was then
    local count = removes[index] + 1
    remove[index][count] = was
    removes[index] = count
  end
  if is then
    local list, count = add[index], adds[index]
    list[count + 1] = '0'
    list[count + 2] = is
    adds[index] = count + 2
  end
end

-- What the indexes hold of a record: in `ids`, its id; in `open`, with its owner when it is in
-- flight; in `expiry`, its time in the order of numbers; in `subjects`.
local function entries(id, bytes)
  local state, flags = byte(bytes, 2, 3)
  local open, expiry, subject
  if state == 1 or state == 7 or state == 9 then
    open = id .. sub(bytes, 12, 27)
  elseif state == 2 or state == 8 then
    open = id
  end
  local next = 28
  if flags % 2 == 1 then
    expiry = string.reverse(sub(bytes, 28, 35)) .. id
    next = 36
  end
  if flags % 4 >= 2 then
    subject = sub(bytes, next, next + 15) .. id
  end
  return id, open, expiry, subject
end

-- Makes sure of every entry of a record that is as it should be, and of none that an earlier state of
-- the same attempt had in `open`. Of a record that is gone entries may be left in the other indexes:
-- they name nothing, and whoever reads them finds that.
local function restore(id, put)
  local is_id, is_open, is_expiry, is_subject
  local stale = {id}
  if put == '' then
    move(1, id, nil)
  else
    is_id, is_open, is_expiry, is_subject = entries(id, put)
    stale[2] = id .. sub(put, 12, 27)
  end
  for _, entry in ipairs(stale) do
    if entry ~= is_open then
      move(2, entry, nil)
    end
  end
  move(1, nil, is_id)
  move(2, nil, is_open)
  move(3, nil, is_expiry)
  move(4, nil, is_subject)
end

-- `repeated`: the record is there already, as an earlier try put it. That one may have ended before it
-- wrote the indexes, as a script does whose next command the server refuses.
local function change(key, id, old, put, repeated)
  if repeated then
    return restore(id, put)
  end
  local was_id, was_open, was_expiry, was_subject
  local is_id, is_open, is_expiry, is_subject
  if old then
    was_id, was_open, was_expiry, was_subject = entries(id, old)
  end
  if put == '' then
    dels = dels + 1
    del[dels] = key
  else
    set[sets + 1] = key
    set[sets + 2] = put
    sets = sets + 2
    is_id, is_open, is_expiry, is_subject = entries(id, put)
  end
  move(1, was_id, is_id)
  move(2, was_open, is_open)
  move(3, was_expiry, is_expiry)
  move(4, was_subject, is_subject)
end

-- The first row that meets something else.
local function misfit(key, arg, rows, again)
  for row = 1, rows do
    local old, expect = found[key + row], ARGV[arg + 3 * row - 1]
    local fits
    if old then
      fits = expect ~= '' and sub(old, 4, 11) == expect
    else
      fits = expect == ''
    end
    if not fits and again then
      fits = (old or '') == ARGV[arg + 3 * row]
    end
    if not fits then
      return {row - 1, old}
    end
  end
end

local results, count, lost, repeated = {}, 0, false, false
local key, arg, last = 5, 3, #ARGV
while arg <= last do
  local rows = tonumber(ARGV[arg])
  local again = rows < 0
  rows = math.abs(rows)
  local missed = misfit(key, arg, rows, again)
  if missed then
    lost = true
  else
    repeated = repeated or again
    for row = 1, rows do
      local at = arg + 3 * row
      local old, put = found[key + row], ARGV[at]
      change(KEYS[key + row], ARGV[at - 2], old, put, again and (old or '') == put)
    end
  end
  count = count + 1
  results[count] = missed or 0
  key, arg = key + rows, arg + 1 + 3 * rows
end

local function each(list, command, key)
  for first = 1, #list, MOST do
    local part_end = math.min(first + MOST - 1, #list)
    if key then
      redis.call(command, key, unpack(list, first, part_end))
    else
      redis.call(command, unpack(list, first, part_end))
    end
  end
end

-- A command that the server refuses ends the script, and what came before it stays. So no record
-- comes before its entries, and none of these goes before it does: an entry too many misleads nobody,
-- as whoever reads one looks at its record.
for index = 1, 4 do
  each(add[index], 'ZADD', KEYS[index])
end
each(set, 'MSET')
each(del, 'DEL')
for index = 1, 4 do
  each(remove[index], 'ZREM', KEYS[index])
end

-- What may have been there already, here or for whoever reads the answer, may be on this server alone. Since
-- Redis 7.2 `WAIT` counts only up to the last write of its own connection, so there has to be one.
if ARGV[2] == '1' and (repeated or lost) then
  redis.call('SET', KEYS[5], ARGV[1])
end
return lost and results or 0
