package postgres

import "strings"

// plans are settings under which a statement that names the rows it wants finds them
// by an index. A plan is kept for as long as its connection, and the server would have
// one made over a table of a page read the table whole, once for each row that is
// wanted, until it takes statistics again: for a minute in which the table may have
// grown a thousandfold. They only raise the price of what they name: a query that no
// index serves reads the whole table as before. What that makes look expensive is not
// compiled and not given to processes of its own.
var plans = [...]struct{ name, value string }{
	{"plan_cache_mode", "force_generic_plan"},
	{"enable_seqscan", "off"},
	{"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"},
	{"jit", "off"},
	{"max_parallel_workers_per_gather", "0"},
}

// planByIndex is the statement that sets the plans which the parameters of a URL do
// not give: of the connection, or of the transaction only.
func planByIndex(given map[string]string, local bool) string {
	var set []string
	for _, p := range plans {
		if _, there := given[p.name]; there {
			continue
		}
		set = append(set, "set_config('"+p.name+"', '"+p.value+"', "+map[bool]string{true: "true", false: "false"}[local]+")")
	}
	return "SELECT " + strings.Join(set, ", ")
}
