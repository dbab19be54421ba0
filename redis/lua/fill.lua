-- Keeps a value unless something newer is known of its key, or may have been forgotten.
-- KEYS: entry, meta, and for each source its last invalidations.
-- ARGV: the key, time to live in ms, the value, then for each source its name, epoch
-- and the position at which the value was read.
local key, line = ARGV[1], {}
local old = redis.call('GET', KEYS[1])
for i = 3, #KEYS do
	local a = 4 + 3 * (i - 3)
	local source, epoch, position = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2])
	local m = redis.call('HMGET', KEYS[2], source .. ':epoch', source .. ':generation', source .. ':floor', source .. ':count')
	if m[1] ~= epoch or position < tonumber(m[3]) or redis.call('ZCARD', KEYS[i]) ~= tonumber(m[4]) then
		return 'refused'
	end
	local last = redis.call('ZSCORE', KEYS[i], key)
	if last and position < tonumber(last) then
		return 'refused'
	end
	for _, l in ipairs(old and labels(old) or {}) do
		if l.source == source and l.generation == m[2] and l.position > position then
			return 'refused'
		end
	end
	line[#line + 1] = source .. ':' .. epoch .. ':' .. m[2] .. ':' .. whole(position)
end
redis.call('SET', KEYS[1], table.concat(line, ',') .. '\n' .. ARGV[3], 'PX', ARGV[2])
return 'kept'
