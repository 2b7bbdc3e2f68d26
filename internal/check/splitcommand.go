package check

import (
	"errors"
	"strings"
)

// SplitCommand splits s into words as a POSIX shell does: at blanks, tabs and newlines outside of quotes. A backslash
// quotes the next character; inside double quotes only $, `, ", \ and newline. It does nothing else that a shell does:
// variables, patterns, ~, #, |, ;, & and redirections are ordinary characters. An open quote, a NUL and a command
// without words are errors.
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

// doubleQuoted appends the text of s before the closing " to word. It returns the number of bytes with the ", and false
// if there is none.
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
