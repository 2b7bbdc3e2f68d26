package check

import (
	"bufio"
	"strings"
)

// CSVRows returns the rows of text up to the first error.
func CSVRows(text string) (rows [][]string) {
	c := csvReader{r: bufio.NewReader(strings.NewReader(text))}
	for {
		row, err := c.row()
		if err != nil {
			return rows
		}
		var fields []string
		for _, f := range row {
			fields = append(fields, string(f))
		}
		rows = append(rows, fields)
	}
}

// FindUDP is findUDP.
var FindUDP = findUDP

// Askers is how many wait for scripts that have not ended.
func (s *Scripts) Askers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, run := range s.running {
		n += run.askers
	}
	return n
}
