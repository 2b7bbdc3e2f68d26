package web

import (
	"sort"
	"time"
)

// recentRow is one service in /recent.
type recentRow struct {
	service string
	at      time.Time
	last    *lastAnswer // nil: no answer yet
}

type lastAnswer struct {
	Code     int     `json:"code"`
	RemoteIP string  `json:"remote_ip"`
	TS       float64 `json:"ts"` // unix seconds
}

// since returns the services with a request since then, by name: service alone, or all if it is "".
func (t *recentTable) since(then time.Time, service string) []recentRow {
	all := []*serviceRow{t.get(service)}
	if service == "" {
		all = t.all()
	} else if all[0] == nil {
		all = nil
	}
	rows := []recentRow{}
	for _, s := range all {
		s.mu.Lock()
		if !s.at.Before(then) {
			row := recentRow{service: s.name, at: s.at}
			if s.answered {
				row.last = &lastAnswer{Code: s.code, RemoteIP: s.addr, TS: unixSeconds(s.at)}
			}
			rows = append(rows, row)
		}
		s.mu.Unlock()
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].service < rows[j].service })
	return rows
}

// recentDoc is /recent as JSON: its rows by name, one after the other in text.
type recentDoc struct {
	text []byte
	rows []recentText
}

// recentText says where a row ends in the text of a recentDoc.
type recentText struct {
	at  time.Time
	end int // in text; the row begins with a comma, at the end of the row before
}

// doc returns the rows of all services in the table.
func (t *recentTable) doc() (recentDoc, error) {
	list := t.since(time.Time{}, "")
	d := recentDoc{rows: make([]recentText, len(list))}
	for i, row := range list {
		b, err := marshal([2]any{row.service, row.last})
		if err != nil {
			return recentDoc{}, err
		}
		d.text = append(append(d.text, ','), b...)
		d.rows[i] = recentText{row.at, len(d.text)}
	}
	return d, nil
}

// appendSince appends the text of the rows since then to parts. It leaves out the comma of the first row. Adjacent rows
// are one part.
func (d *recentDoc) appendSince(parts [][]byte, then time.Time) [][]byte {
	begin, comma := 0, 1 // begin is the start of the next part
	take := func(end int) {
		if begin < end {
			parts = append(parts, d.text[begin+comma:end])
			comma = 0
		}
	}
	end := 0
	for _, row := range d.rows {
		if row.at.Before(then) {
			take(end)
			begin = row.end
		}
		end = row.end
	}
	take(end)
	return parts
}

// ServiceCount is a service with a request in the last ten minutes.
type ServiceCount struct {
	Service string
	Code    int    // of the last answer
	Answers uint64 // since the first request
}

// ServiceCounts returns the services with an answer in the last ten minutes, by name.
func (s *Server) ServiceCounts() []ServiceCount {
	then := time.Now().Add(-recentFor)
	var list []ServiceCount
	for _, row := range s.recent.all() {
		row.mu.Lock()
		if row.answered && !row.at.Before(then) {
			n := row.past
			row.each(func(c *caller) { n += c.n })
			list = append(list, ServiceCount{Service: row.name, Code: row.code, Answers: n})
		}
		row.mu.Unlock()
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Service < list[j].Service })
	return list
}

// counts returns the number of answers about each service to each caller.
func (t *recentTable) counts() map[string]map[string]uint64 {
	all := make(map[string]map[string]uint64)
	for _, s := range t.all() {
		s.mu.Lock()
		m := make(map[string]uint64, 1+len(s.others))
		s.each(func(c *caller) {
			if c.n > 0 {
				m[c.addr] = c.n
			}
		})
		s.mu.Unlock()
		all[s.name] = m
	}
	return all
}

// latest is what the overview takes from a serviceRow.
type latest struct {
	at       time.Time
	answered bool
	code     int
	history  history
	marks    [historySlots]mark
}

// latest returns the services with a request since then, by name.
func (t *recentTable) latest(then, now time.Time) map[string]*latest {
	all := map[string]*latest{}
	for _, s := range t.all() {
		s.mu.Lock()
		if !s.at.Before(then) {
			all[s.name] = &latest{s.at, s.answered, s.code, s.history, s.history.marks(now)}
		}
		s.mu.Unlock()
	}
	return all
}
