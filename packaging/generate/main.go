// Command generate writes what a package has in addition to the commands and the units: man pages, completions
// and the configuration file. All of it comes from what the commands and internal/config say of
// themselves, so that none of it can be out of date:
//
//	generate -bin bin -out DIR -version 1.2.3 -date 2026-01-31
//
// The commands are asked for --help, and each subcommand they name there as well; a new option, section or
// subcommand needs nothing here. What no --help has (files, systemd, the words around the keys) is in
// docs/man, by the name of the page.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// commands are the commands of the package, by the section their page is in.
var commands = []struct{ name, section string }{
	{"hacheck", "8"},
	{"haup", "1"},
	{"hadown", "1"},
	{"hastatus", "1"},
	{"halist", "1"},
	{"hashowdowned", "1"},
}

func main() {
	bin := flag.String("bin", "bin", "`DIR` with the commands, which can be run here")
	out := flag.String("out", "", "`DIR` to write to")
	texts := flag.String("texts", "docs/man", "`DIR` with the sections that no --help has")
	version := flag.String("version", "dev", "of the commands")
	date := flag.String("date", "", "of the version, `YYYY-MM-DD`")
	flag.Parse()
	if err := generate(*bin, *out, *texts, *version, *date); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(bin, out, texts, version, date string) error {
	if out == "" {
		return fmt.Errorf("write files: -out names no directory")
	}
	if _, err := time.Parse(time.DateOnly, date); err != nil {
		return fmt.Errorf("read -date: %w", err)
	}
	var pages []*page
	for _, c := range commands {
		found, err := ask(bin, c.section, c.name)
		if err != nil {
			return err
		}
		pages = append(pages, found...)
	}
	files, err := manPages(pages, texts, version, date)
	if err != nil {
		return err
	}
	files["hacheck.yaml"] = configFile()
	for name, text := range completions(pages) {
		files[name] = text
	}
	for name, text := range files {
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write files: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write files: %w", err)
		}
	}
	return nil
}

// ask returns the pages of a command and of its subcommands, as their --help has them.
func ask(bin, section string, words ...string) ([]*page, error) {
	name := strings.Join(words, " ")
	//nolint:gosec // it runs the commands that it is told to: that is its job
	text, err := exec.Command(filepath.Join(bin, words[0]), append(words[1:], "--help")...).Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s --help: %w", name, err)
	}
	p, err := parse(name, string(text))
	if err != nil {
		return nil, fmt.Errorf("read what %s --help says: %w", name, err)
	}
	p.section = section
	pages := []*page{p}
	for _, sub := range p.subcommands {
		found, err := ask(bin, section, append(words[:len(words):len(words)], sub)...)
		if err != nil {
			return nil, err
		}
		pages = append(pages, found...)
	}
	return pages, nil
}
