-- Fields between two bounds, and their values at a snapshot. The first item of the
-- answer is the field to go on behind, empty at the end.
-- ARGV, further: lower and upper bound as ZRANGEBYLEX has them, limit.
local fields = redis.call('ZRANGEBYLEX', index, ARGV[4], ARGV[5], 'LIMIT', 0, ARGV[6])
answer[4] = ''
if #fields > 0 then
	if #fields == tonumber(ARGV[6]) then
		answer[4] = fields[#fields]
	end
	local entries = redis.call('HMGET', values, unpack(fields))
	for i, field in ipairs(fields) do
		local value = payload(field, entries[i])
		if value then
			answer[#answer + 1] = field
			answer[#answer + 1] = value
		end
	end
end
if gone then
	return {'gone'}
end
return answer
