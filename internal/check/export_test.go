package check

import (
	"bufio"
	"fmt"
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
	for _, c := range s.commands {
		for _, run := range append([]*script{c.running}, c.next...) {
			n += run.askers
		}
	}
	return n
}

// Challenges returns what a WWW-Authenticate offers, each challenge with its parameters.
func Challenges(text string) (all []string) {
	for _, c := range parseChallenges(text) {
		all = append(all, fmt.Sprint(c.scheme, " ", c.params))
	}
	return all
}

// DigestAnswer answers the best of the challenges.
func DigestAnswer(challenges, method, uri, user, password, nonce string) (string, error) {
	return (&credentials{user, Secret(password)}).digestAuthorization([]string{challenges}, method, uri, nonce)
}

// ParseHealth is parseHealth.
var ParseHealth = parseHealth
