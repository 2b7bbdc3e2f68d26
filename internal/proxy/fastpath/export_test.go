package fastpath

// ParseHead parses a head, for the tests in package fastpath_test.
func ParseHead(text string) (*Head, bool) {
	h := new(Head)
	return h, h.parse(text)
}

// Answerer answers the heads of one connection.
type Answerer struct{ *answerer }

// NewAnswerer returns an Answerer for requests of newRequest.
func NewAnswerer(newRequest func() Request) Answerer {
	return Answerer{newAnswerer(&endpoint{Options: Options{NewRequest: newRequest}})}
}

// Answer is answerer.answer.
func (a Answerer) Answer(out, head []byte, client string, mayBlock bool) (answer []byte, last, ok bool) {
	return a.answer(out, head, client, mayBlock)
}
