package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// sourceNames has the names in the Go files of the project.
type sourceNames struct {
	packages map[string]map[string]bool // the declared names of each package, methods and fields included
	all      map[string]bool            // every declared name
	files    map[string]bool            // base names, of all files
	comments []sourceComment
}

type sourceComment struct{ place, text string }

// findSourceNames parses every Go file of the project, for every system and with every build tag.
func findSourceNames(t *testing.T) *sourceNames {
	t.Helper()
	s := &sourceNames{packages: map[string]map[string]bool{}, all: map[string]bool{}, files: map[string]bool{}}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		s.files[filepath.Base(name)] = true
		if strings.HasSuffix(name, ".go") {
			return s.addFile(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sourceNames) addFile(name string) error {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	names := s.packages[file.Name.Name]
	if names == nil {
		names = map[string]bool{}
		s.packages[file.Name.Name] = names
	}
	add := func(list ...*ast.Ident) {
		for _, id := range list {
			names[id.Name], s.all[id.Name] = true, true
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			add(n.Name)
		case *ast.TypeSpec:
			add(n.Name)
		case *ast.ValueSpec:
			add(n.Names...)
		case *ast.Field:
			add(n.Names...)
		}
		return true
	})
	for _, group := range file.Comments {
		s.comments = append(s.comments, sourceComment{files.Position(group.Pos()).String(), group.Text()})
	}
	return nil
}

// missing returns the part of a name such as cache.Do, Evaluator.Evaluate or evaluator.go that does not exist, "" if the
// name exists.
func (s *sourceNames) missing(name string) string {
	parts := strings.Split(name, ".")
	if path.Ext(name) == ".go" {
		if !s.files[path.Base(name)] {
			return name
		}
		return ""
	}
	if names := s.packages[parts[0]]; names != nil && len(parts) > 1 {
		if !names[parts[1]] {
			return name
		}
		parts = parts[2:]
	}
	for _, part := range parts {
		if !s.all[part] && s.packages[part] == nil {
			return part
		}
	}
	return ""
}

// isGoName reports whether a code span of a document is a name in Go: file.go, pkg.Name, Type.Method or mixedCaps.
func isGoName(span string) bool {
	if regexp.MustCompile(`^[\w/]+\.go$`).MatchString(span) || regexp.MustCompile(`^[A-Za-z]\w*(\.[A-Z]\w*)+$`).MatchString(span) {
		return true
	}
	return regexp.MustCompile(`^[A-Za-z]+$`).MatchString(span) && strings.ContainsFunc(span, unicode.IsLower) && strings.ContainsFunc(span, unicode.IsUpper)
}

// TestDocumentNames: the files, directories, types and functions that the pages for developers name exist.
func TestDocumentNames(t *testing.T) {
	t.Parallel()
	names := findSourceNames(t)
	for _, page := range []string{"../docs/architecture.md", "../CONTRIBUTING.md"} {
		checked := 0
		for i, line := range strings.Split(readFile(t, page), "\n") {
			for _, span := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
				name := span[1]
				switch {
				case regexp.MustCompile(`^(internal|cmd|test|docs|packaging|bench|demo)/[\w/.-]+$`).MatchString(name):
					checked++
					if _, err := os.Stat(filepath.Join("..", name)); err != nil {
						t.Errorf("%s:%d: there is no %s", page, i+1, name)
					}
				case isGoName(name):
					checked++
					if part := names.missing(name); part != "" {
						t.Errorf("%s:%d: %s: there is no %s", page, i+1, name, part)
					}
				}
			}
		}
		if checked < 10 {
			t.Errorf("%s names only %d files and functions: does this test still find them?", page, checked)
		}
	}
}

// TestCommentNames: a comment that names pkg.Name of a package of the project names something that exists.
func TestCommentNames(t *testing.T) {
	t.Parallel()
	names := findSourceNames(t)
	reference := regexp.MustCompile(`(?:^|[^\w./])([a-z]\w*)\.([A-Z]\w*)`)
	checked := 0
	for _, comment := range names.comments {
		for _, m := range reference.FindAllStringSubmatch(comment.text, -1) {
			if names.packages[m[1]] == nil {
				continue
			}
			checked++
			if !names.packages[m[1]][m[2]] {
				t.Errorf("%s: there is no %s.%s", comment.place, m[1], m[2])
			}
		}
	}
	if checked < 30 {
		t.Errorf("%d names in comments: does this test still find them?", checked)
	}
}

// TestDocumentLinks: every link between the pages leads to a file, and to a heading if it has one.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		for _, m := range regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`).FindAllStringSubmatch(readFile(t, page), -1) {
			target, heading := m[1], m[2]
			if strings.Contains(target, "://") {
				continue
			}
			links++
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: a link to %s, which does not exist", page, target)
			} else if heading != "" && !headings(readFile(t, file))[heading] {
				t.Errorf("%s: a link to %s#%s, and there is no such heading", page, target, heading)
			}
		}
	}
	if links < 50 {
		t.Errorf("%d links found", links)
	}
}

// headings returns the anchors of a page's headings, as GitHub makes them.
func headings(text string) map[string]bool {
	anchors, count := map[string]bool{}, map[string]int{}
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if fenced || !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title))
		if n := count[anchor]; n > 0 {
			anchors[fmt.Sprintf("%s-%d", anchor, n)] = true
		}
		count[anchor]++
		anchors[anchor] = true
	}
	return anchors
}
