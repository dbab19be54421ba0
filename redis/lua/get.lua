-- Values of fields at a snapshot, in one go.  ARGV, further: the fields.
for first = 4, #ARGV, 1000 do
	local last = math.min(first + 999, #ARGV)
	local entries = redis.call('HMGET', values, unpack(ARGV, first, last))
	for i = first, last do
		answer[#answer + 1] = payload(ARGV[i], entries[i - first + 1])
	end
end
if gone then
	return {'gone'}
end
return answer
