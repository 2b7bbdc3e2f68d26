package cmdline

// Closest returns the name that is most similar to word, or "" if each differs by more than maxDistance bytes. Its time
// grows with the length of word, so limit that first.
func Closest(word string, names []string, maxDistance int) string {
	closest, distance := "", maxDistance+1
	for _, name := range names {
		if d := editDistance(word, name); d < distance {
			closest, distance = name, d
		}
	}
	return closest
}

// editDistance returns the number of bytes to insert, delete or change to turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
