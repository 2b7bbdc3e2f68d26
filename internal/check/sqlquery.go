package check

// queryOptions are the options of databases that take a query. They are for the configuration alone: no URL names one.
var queryOptions = []Option{
	{Name: "query", Want: "an SQL query", Doc: "a query after the login; the check fails if the query does"},
	{Name: "expect", Want: "a text", Doc: "what the first column of the first row has to be; needs query"},
}

// sqlQuery is the query of a check, and what it has to find.
type sqlQuery struct {
	text    string // "": no query
	expect  string
	compare bool // expect is given
}

// sqlQuery reads queryOptions.
func (o *optionReader) sqlQuery() sqlQuery {
	q := sqlQuery{text: o.text("query", "")}
	q.expect, q.compare = o.written("expect")
	if q.compare && q.text == "" {
		o.addError("expect", "needs query")
	}
	return q
}

// mismatch says how the first column of the first row differs from what is expected; "" if it does not. rows is the
// number of rows; null is true for NULL.
func (q sqlQuery) mismatch(rows int, found string, null bool) string {
	switch {
	case !q.compare:
		return ""
	case rows == 0:
		return "the query returns no row; " + excerpt(q.expect, 100) + " wanted"
	case null:
		return "the query returns NULL; " + excerpt(q.expect, 100) + " wanted"
	case found != q.expect:
		return "the query returns " + excerpt(found, 100) + "; " + excerpt(q.expect, 100) + " wanted"
	}
	return ""
}
