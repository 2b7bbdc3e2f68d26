package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hacheck/internal/balancer"
)

// logTexts returns every message that the daemon logs, with its level.
func logTexts(t *testing.T) map[string]string {
	t.Helper()
	lines := map[string]string{}
	err := filepath.WalkDir("../internal", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains([]string{"runner", "admin", "testdata"}, e.Name()):
			return fs.SkipDir // they do not log
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				logTextsOf(t, path, f, lines)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// logTextsOf adds the messages of one function: those of log.Warn("message", ...), and those of package spool,
// notify.log(slog.LevelWarn, "message", ...) and notify.logUnlimited.
func logTextsOf(t *testing.T, path string, f *ast.FuncDecl, lines map[string]string) {
	var texts func(e ast.Expr) []string
	texts = func(e ast.Expr) []string {
		switch e := e.(type) {
		case *ast.BasicLit:
			if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
				return []string{s}
			}
		case *ast.Ident: // a variable: every text that the function gives it
			var all []string
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if c, ok := n.(*ast.ValueSpec); ok { // a constant
					for i, name := range c.Names {
						if name.Name == e.Name && i < len(c.Values) {
							all = append(all, texts(c.Values[i])...)
						}
					}
				}
				a, ok := n.(*ast.AssignStmt)
				if !ok || len(a.Lhs) == 0 || len(a.Rhs) == 0 {
					return true
				}
				if to, ok := a.Lhs[0].(*ast.Ident); ok && to.Name == e.Name {
					if lit, ok := a.Rhs[0].(*ast.BasicLit); ok {
						if s, err := strconv.Unquote(lit.Value); err == nil {
							all = append(all, s)
						}
					}
				}
				return true
			})
			return all
		}
		return nil
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		var level string
		var message ast.Expr
		switch sel.Sel.Name {
		case "Debug", "Info", "Warn", "Error":
			if x, ok := sel.X.(*ast.Ident); len(call.Args) == 0 || ok && x.Name == "rpctypes" {
				return true // the Error of an error, or a function that converts one
			}
			level, message = strings.ToUpper(sel.Sel.Name), call.Args[0]
		case "log", "logUnlimited":
			if len(call.Args) < 2 {
				return true
			}
			l, ok := call.Args[0].(*ast.SelectorExpr)
			if !ok {
				return true
			}
			level, message = strings.ToUpper(strings.TrimPrefix(l.Sel.Name, "Level")), call.Args[1]
		default:
			return true
		}
		found := texts(message)
		if len(found) == 0 && f.Name.Name != "log" {
			t.Errorf("%s: %s: a message that this test cannot read", path, f.Name.Name)
		}
		for _, m := range found {
			lines[m] = level
		}
		return true
	})
}

// TestLogLines: docs/monitoring.md has a row for every log message, with its level, and no other row.
func TestLogLines(t *testing.T) {
	t.Parallel()
	row := regexp.MustCompile("(?m)^\\| (DEBUG|INFO|WARN|ERROR) \\| `([^`]+)` \\|")
	listed := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(readFile(t, "../docs/monitoring.md"), -1) {
		if listed[m[2]] != "" {
			t.Errorf("docs/monitoring.md has two rows for %q", m[2])
		}
		listed[m[2]] = m[1]
	}
	logged := logTexts(t)
	if len(logged) < 30 {
		t.Errorf("found %d messages only: this test looks for the wrong thing", len(logged))
	}
	for _, m := range slices.Sorted(maps.Keys(logged)) {
		if listed[m] != logged[m] {
			t.Errorf("docs/monitoring.md has no row | %s | `%s` |", logged[m], m)
		}
		delete(listed, m)
	}
	for m := range listed {
		t.Errorf("docs/monitoring.md has a row for %q, which nothing logs", m)
	}
}

// TestSettingsAreNamed: every setting that docs/monitoring.md, docs/operating.md and docs/security.md name exists.
func TestSettingsAreNamed(t *testing.T) {
	t.Parallel()
	help := readFile(t, "../internal/config/keys.go") + readFile(t, "../internal/config/fleetkeys.go")
	_, page := balancerRows(t)
	page += readFile(t, "../docs/operating.md") + readFile(t, "../docs/security.md")
	for _, name := range regexp.MustCompile("`([a-z]+(?:_[a-z]+)+)(?::[^`]*)?`").FindAllStringSubmatch(page, -1) {
		if strings.HasPrefix(name[1], "hacheck_") || strings.HasPrefix(name[1], "process_") || strings.HasPrefix(name[1], "go_") ||
			slices.Contains([]string{"agent_listen", "http_listen", "beacon_listen", "allow_redirects"}, name[1]) {
			continue
		}
		if !strings.Contains(help, `"`+name[1]+`"`) {
			t.Errorf("%s is no setting", name[0])
		}
	}
}

// TestVulncheckWithoutDatabase: if the database cannot be reached, the error says what is needed.
func TestVulncheckWithoutDatabase(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(findTool(t, "make"), "-s", "vulncheck", "VULNDB=http://127.0.0.1:"+strconv.Itoa(freePort(t)))
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not checked: ") || !strings.Contains(string(out), "VULNDB=file:///") {
		t.Errorf("make vulncheck: %v\n%s", err, out)
	}
}

// balancerRows returns the rows of docs/monitoring.md about the keys of /balancers, and the rest of the page.
func balancerRows(t *testing.T) (rows, rest string) {
	t.Helper()
	before, rows, _ := strings.Cut(readFile(t, "../docs/monitoring.md"), "### What balancers think\n")
	rows, after, _ := strings.Cut(rows, "\n### ")
	return rows, before + after
}

// TestBalancersDocumented: docs/monitoring.md names exactly the keys of /balancers.
func TestBalancersDocumented(t *testing.T) {
	t.Parallel()
	rows, _ := balancerRows(t)
	documented := map[string]bool{}
	for row := range strings.Lines(rows) {
		if !strings.HasPrefix(row, "| `") {
			continue
		}
		for i, text := range strings.Split(row, "`") {
			if i%2 == 1 && regexp.MustCompile(`^[a-z_]+$`).MatchString(text) && text != "null" {
				documented[text] = true
			}
		}
	}
	keys := map[string]bool{}
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(typ.Elem())
		case reflect.Struct:
			for f := range typ.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				keys[name] = true
				walk(f.Type)
			}
		default:
		}
	}
	walk(reflect.TypeFor[balancer.Report]())
	if d := cmp.Diff(keys, documented); d != "" {
		t.Errorf("keys of /balancers in docs/monitoring.md (-want +got):\n%s", d)
	}
}
