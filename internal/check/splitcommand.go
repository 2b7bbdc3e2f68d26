package check

import (
	"errors"
	"strings"
)

// SplitCommand splits s into words as a POSIX shell does, and does nothing else that a shell would: blanks,
// tabs and newlines separate; quotes hold a word together; a backslash takes the meaning from what follows
// it, everything outside quotes, and $, `, ", \ and newline inside double ones. No variable, pattern, ~ or
// #, and no |, ;, & or redirection means anything: they are letters. A word without an end, a NUL and a
// command without words are errors.
func SplitCommand(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false // also when the word is empty so far: ''
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == 0:
			return nil, errors.New("a NUL character in the command")
		case c == ' ', c == '\t', c == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case c == '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' without a second one")
			}
			word.WriteString(s[i+1 : i+1+end])
			i += end + 1
			inWord = true
		case c == '"':
			n, ok := doubleQuoted(&word, s[i+1:])
			if !ok {
				return nil, errors.New("a \" without a second one")
			}
			i += n
			inWord = true
		case c == '\\' && i+1 == len(s):
			return nil, errors.New("a \\ with nothing after it")
		case c == '\\' && s[i+1] == '\n':
			i++ // a line goes on
		case c == '\\':
			i++
			word.WriteByte(s[i])
			inWord = true
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	switch {
	case strings.IndexByte(s, 0) >= 0: // in quotes
		return nil, errors.New("a NUL character in the command")
	case len(words) == 0:
		return nil, errors.New("no command")
	case words[0] == "":
		return nil, errors.New("an empty name of a program")
	}
	return words, nil
}

// doubleQuoted writes what s has before a closing " to word, and returns how many bytes that and the " are.
func doubleQuoted(word *strings.Builder, s string) (int, bool) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return i + 1, true
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '\n':
			i++
		case s[i] == '\\' && i+1 < len(s) && strings.IndexByte("$`\"\\", s[i+1]) >= 0:
			i++
			word.WriteByte(s[i])
		default:
			word.WriteByte(s[i])
		}
	}
	return 0, false
}
