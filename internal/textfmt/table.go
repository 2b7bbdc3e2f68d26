package textfmt

import "strings"

// maxPadding is the largest width of a column. A longer cell moves only its own row, so a name of 200 letters does not
// push the other rows off the screen.
const maxPadding = 40

// Table returns rows as lines with aligned columns and two spaces between them. It does not pad the last column. below
// has further lines for each row, which follow it indented; it may be shorter than rows.
func Table(rows [][]string, below ...[]string) string {
	var width []int
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			if i == len(width) {
				width = append(width, 0)
			}
			if n := Columns(cell); n <= maxPadding {
				width[i] = max(width[i], n)
			}
		}
	}
	var b strings.Builder
	for n, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell
			if i < len(width) {
				line += strings.Repeat(" ", max(width[i]-Columns(cell), 0)+2)
			}
		}
		b.WriteString(strings.TrimRight(line, " "))
		b.WriteByte('\n')
		if n < len(below) {
			for _, line := range below[n] {
				b.WriteString("        " + line + "\n")
			}
		}
	}
	return b.String()
}

// MoveToFront moves the rows of a table for which isFirst returns true to the front. Otherwise it keeps their order.
func MoveToFront[Row any](rows []Row, isFirst func(*Row) bool) {
	var rest []Row
	n := 0
	for i := range rows {
		if isFirst(&rows[i]) {
			rows[n] = rows[i]
			n++
		} else {
			rest = append(rest, rows[i])
		}
	}
	copy(rows[n:], rest)
}
