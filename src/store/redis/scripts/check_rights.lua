-- Calls each write command of the other scripts, so that a missing right shows at the start.
--
-- KEYS  a string and a sorted set that nothing else uses
redis.call('SET', KEYS[1], '1')
redis.call('MSET', KEYS[1], '1')
redis.call('GET', KEYS[1])
redis.call('MGET', KEYS[1])
redis.call('ZADD', KEYS[2], 0, '1')
redis.call('ZREM', KEYS[2], '1')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', 0)
redis.call('DEL', KEYS[1])
return 0
