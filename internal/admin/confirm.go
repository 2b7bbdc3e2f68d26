package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"hacheck/internal/terminal"
	"hacheck/internal/textfmt"
)

// errNoTerminal says that a question cannot be asked.
var errNoTerminal = errors.New("standard input is no terminal")

// maxAnswerLine bounds an answer in bytes.
const maxAnswerLine = 256

// confirm asks a question on the terminal and returns whether the answer is want. It returns errNoTerminal if standard
// input is no terminal.
func (c *command) confirm(question, want string) (bool, error) {
	in, ok := c.Stdin.(*os.File)
	if !ok || !terminal.IsTerminal(in) {
		return false, errNoTerminal
	}
	_ = c.out.Flush() // Main reports an error
	_, _ = fmt.Fprintf(c.Stderr, "%s: %s: ", c.name, textfmt.OneLine(question))
	line, err := bufio.NewReader(io.LimitReader(in, maxAnswerLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return strings.TrimSpace(line) == want, nil
}
