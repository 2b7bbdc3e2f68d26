package admin

import (
	"strings"
	"unicode/utf8"
)

// widest is how far a column is padded. A longer cell moves only its own row, so one name of 200
// letters does not push everything else off the screen.
const widest = 40

// table returns rows as lines with their columns aligned and two spaces between; the last column is not
// padded.
func table(rows [][]string) string {
	var width []int
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			if i == len(width) {
				width = append(width, 0)
			}
			if n := utf8.RuneCountInString(cell); n <= widest {
				width[i] = max(width[i], n)
			}
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += cell
			if i < len(width) {
				line += strings.Repeat(" ", max(width[i]-utf8.RuneCountInString(cell), 0)+2)
			}
		}
		b.WriteString(strings.TrimRight(line, " "))
		b.WriteByte('\n')
	}
	return b.String()
}
