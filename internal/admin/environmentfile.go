package admin

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxDefaults bounds how much of the file Env.Defaults is read.
const maxDefaults = 64 << 10

// blanks are the blanks of a line.
const blanks = " \t"

// readDefaults reads lines NAME=VALUE as systemd reads an EnvironmentFile: see systemd.exec(5). A file that is missing has
// no lines.
func readDefaults(path string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxDefaults))
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for text := strings.ReplaceAll(string(data), "\r", "\n"); text != ""; {
		line, rest, _ := strings.Cut(text, "\n")
		name, _, ok := strings.Cut(line, "=")
		if isComment := strings.IndexAny(strings.TrimLeft(name, blanks), "#;") == 0; !ok || isComment {
			text = rest
			continue
		}
		values[strings.Trim(name, blanks)], text = readValue(text[len(name)+1:])
	}
	return values, nil
}

// readValue reads a value at the start of text, and returns the text after it. A quote counts at the start of the value or
// after another quoted part. A quoted part may have several lines, and a line that ends with a backslash goes on in the
// next one.
func readValue(text string) (value, rest string) {
	var b strings.Builder
	for text = strings.TrimLeft(text, blanks); text != "" && (text[0] == '"' || text[0] == '\''); text = strings.TrimLeft(text, blanks) {
		quote, i := text[0], 1
		for ; i < len(text) && text[i] != quote; i++ {
			if quote == '"' && text[i] == '\\' && i+1 < len(text) {
				if i++; text[i] == '\n' {
					continue
				}
				if !strings.ContainsRune("\"\\`$", rune(text[i])) {
					b.WriteByte('\\')
				}
			}
			b.WriteByte(text[i])
		}
		text = text[min(i+1, len(text)):]
	}
	i, end := 0, b.Len()
	for ; i < len(text) && text[i] != '\n'; i++ {
		if text[i] == '\\' && i+1 < len(text) {
			if i++; text[i] == '\n' {
				continue
			}
		}
		b.WriteByte(text[i])
	}
	value = b.String()
	return value[:end] + strings.TrimRight(value[end:], blanks), text[i:]
}

// splitWords splits text at blanks as systemd splits the $VARIABLE of a command line. Blanks between quotes and behind a
// backslash belong to the word.
func splitWords(text string) []string {
	var words []string
	var b strings.Builder
	var quote byte
	inWord := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && strings.ContainsRune(blanks+"\n", rune(c)):
			if inWord {
				words = append(words, b.String())
			}
			b.Reset()
			inWord = false
		default:
			b.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, b.String())
	}
	return words
}
