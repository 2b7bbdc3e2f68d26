package check

import "fmt"

// FindUDP is findUDP.
var FindUDP = findUDP

// Running returns how many slots are taken now.
func (l *Limiter) Running() int {
	running, _, _ := l.slots.count(slotOwner{})
	return running
}

// Running returns how many scripts run now.
func (s *Scripts) Running() int {
	running, _, _ := s.slots.count(slotOwner{})
	return running
}

// Callers returns how many callers wait for scripts that have not ended.
func (s *Scripts) Callers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.commands {
		for _, run := range append([]*scriptRun{c.current}, c.next...) {
			n += run.callers
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
	return (&credentials{user, Secret(password)}).digestAuthorization([]string{challenges}, digestRequest{method, uri, "body", nonce})
}
