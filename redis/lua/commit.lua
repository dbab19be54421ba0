-- One transaction: all of it, or nothing. It is refused if a commit has come in
-- between, or if a mark is not the one that it goes on from.
--
-- KEYS: values, index, meta, young, old, dead.
-- ARGV: id of the commit that it has read, or "*" if it has read nothing; its own id;
-- how long replaced values are kept, in ms; then triples of an operation, a field
-- and a value: "=" wants the field to have the value, "?" to be absent, "+" puts, "-"
-- deletes. The first two come first.
local values, index, meta, young, old, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local function stamp(n) return string.format('%015.0f', n) end

local m = redis.call('HMGET', meta, 'n', 'id', 'turned', 'young')
local n, id, turned, began = tonumber(m[1] or 0) + 1, m[2] or '', tonumber(m[3] or 0), tonumber(m[4] or 1)
if id == ARGV[2] then
	return {'ok', stamp(n - 1)} -- it is this one, sent again
end
if ARGV[1] ~= '*' and ARGV[1] ~= id then
	return {'raced', stamp(n - 1), id}
end
local first = 4
while ARGV[first] == '=' or ARGV[first] == '?' do
	local entry = redis.call('HGET', values, ARGV[first + 1])
	local value = ''
	local found = entry and string.sub(entry, 16, 16) == '+'
	if found then
		value = string.sub(entry, 17)
	end
	if value ~= ARGV[first + 2] or (found and true or false) ~= (ARGV[first] == '=') then
		return {'fenced', stamp(n - 1), id}
	end
	first = first + 3
end

-- The first write is one that Redis refuses when its memory is full; it never refuses
-- those behind it.
local this = stamp(n)
redis.call('HSET', meta, 'n', this, 'id', ARGV[2])

-- Replaced values are kept in two generations, of which the older is dropped as a
-- whole. Snapshots behind the horizon find all that they need.
local time = redis.call('TIME')
local now, keep = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[3])
if turned == 0 or now < turned or now - turned >= keep then
	redis.call('UNLINK', old)
	if redis.call('EXISTS', young) == 1 then
		redis.call('RENAME', young, old)
	end
	redis.call('HSET', meta, 'turned', string.format('%.0f', now), 'young', this, 'horizon', stamp(began - 1))
end
redis.call('HSET', young, this, id)
redis.call('PEXPIRE', young, 4 * keep)

local deleted = 0
for i = first, #ARGV, 3 do
	local field = ARGV[i + 1]
	local entry = redis.call('HGET', values, field)
	if ARGV[i] == '+' then
		redis.call('HSET', young, this .. field, entry or '')
		redis.call('HSET', values, field, this .. '+' .. ARGV[i + 2])
		if not entry then
			redis.call('ZADD', index, 0, field)
		end
	elseif entry and string.sub(entry, 16, 16) == '+' then
		redis.call('HSET', young, this .. field, entry)
		redis.call('HSET', values, field, this .. '-')
		redis.call('ZADD', dead, n, field)
		deleted = deleted + 1
	end
end

-- What was deleted before the horizon is gone for every snapshot.
local horizon = tonumber(redis.call('HGET', meta, 'horizon'))
for _, field in ipairs(redis.call('ZRANGEBYSCORE', dead, '-inf', horizon, 'LIMIT', 0, 2 * deleted + 16)) do
	local entry = redis.call('HGET', values, field)
	if entry and string.sub(entry, 16, 16) == '-' then
		redis.call('HDEL', values, field)
		redis.call('ZREM', index, field)
	end
	redis.call('ZREM', dead, field)
end
return {'ok', this}
