package freehold_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// files lists the project's files that a pattern names, by path.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && p != "." {
			return filepath.SkipDir
		}
		if ok, _ := path.Match(pattern, d.Name()); ok && !d.IsDir() {
			all = append(all, filepath.ToSlash(p))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func text(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

var (
	namedTest = regexp.MustCompile("`([a-z/]+)\\.(Test[A-Za-z0-9]+)`")
	suiteTest = regexp.MustCompile(`"([a-z][^"]+)"`)
)

// TestDefects checks that every test that docs/defects.md names exists, and that no
// row is missing.
func TestDefects(t *testing.T) {
	t.Parallel()
	suite := ""
	for _, f := range files(t, "*.go") {
		if strings.HasPrefix(f, "journal/journaltest/") {
			suite += text(t, f)
		}
	}
	var rows []string
	for line := range strings.Lines(text(t, "docs/defects.md")) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		if _, err := strconv.Atoi(strings.TrimSpace(cells[0])); err != nil || len(cells) != 4 {
			continue
		}
		rows = append(rows, strings.TrimSpace(cells[0]))
		named := 0
		for _, m := range namedTest.FindAllStringSubmatch(cells[3], -1) {
			named++
			found := false
			for _, f := range files(t, "*_test.go") {
				found = found || path.Dir(f) == m[1] && strings.Contains(text(t, f), "func "+m[2]+"(t *testing.T)")
			}
			if !found {
				t.Errorf("row %s: there is no %s in %s", rows[len(rows)-1], m[2], m[1])
			}
		}
		for _, m := range suiteTest.FindAllStringSubmatch(cells[3], -1) {
			named++
			if !strings.Contains(suite, `{"`+m[1]) {
				t.Errorf("row %s: the suite has no test %q", rows[len(rows)-1], m[1])
			}
		}
		if named == 0 {
			t.Errorf("row %s names no test", rows[len(rows)-1])
		}
	}
	var want []string
	for _, span := range [][2]int{{1, 19}, {22, 38}} {
		for n := span[0]; n <= span[1]; n++ {
			want = append(want, strconv.Itoa(n))
		}
	}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %v, want %v", rows, want)
	}
}

// TestFilesAreShort keeps every file readable in one sitting.
func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	for _, f := range files(t, "*.go") {
		limit := 400
		if strings.HasSuffix(f, "_test.go") || strings.Contains(path.Base(path.Dir(f)), "test") {
			limit = 550
		}
		if n := strings.Count(text(t, f), "\n"); n > limit {
			t.Errorf("%s has %d lines, at most %d are wanted: split it by what it holds", f, n, limit)
		}
	}
}

// TestPackagesSayWhatTheyGuarantee wants every package that users build on to say, in
// prose, what it guarantees, in which order, and what happens when something fails;
// and every exported name to say what it means.
func TestPackagesSayWhatTheyGuarantee(t *testing.T) {
	t.Parallel()
	dirs := map[string]bool{}
	for _, f := range files(t, "*.go") {
		dirs[path.Dir(f)] = true
	}
	for dir := range dirs {
		top, _, _ := strings.Cut(dir, "/")
		if top == "internal" || top == "cmd" || top == "examples" {
			continue
		}
		set := token.NewFileSet()
		var parsed []*ast.File
		for _, f := range files(t, "*.go") {
			if path.Dir(f) == dir && !strings.HasSuffix(f, "_test.go") {
				file, err := parser.ParseFile(set, f, nil, parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				parsed = append(parsed, file)
			}
		}
		if len(parsed) == 0 {
			continue
		}
		d, err := doc.NewFromFiles(set, parsed, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, heading := range []string{"# Guarantees", "# Ordering", "# Failure"} {
			if top != "shop" && !strings.Contains(d.Doc, heading) {
				t.Errorf("package %s does not say: %s", dir, heading)
			}
		}
		if d.Doc == "" {
			t.Errorf("package %s has no comment", dir)
		}
		undocumented(t, dir, d)
	}
}

func undocumented(t *testing.T, dir string, d *doc.Package) {
	t.Helper()
	want := func(name, text string) {
		t.Helper()
		if ast.IsExported(name) && strings.TrimSpace(text) == "" {
			t.Errorf("%s: %s has no comment", dir, name)
		}
	}
	funcs := d.Funcs
	for _, typ := range d.Types {
		want(typ.Name, typ.Doc)
		funcs = append(append(funcs, typ.Funcs...), typ.Methods...)
	}
	for _, f := range funcs {
		if interfaceMethod := f.Recv != "" && slices.Contains([]string{"EventType", "String", "Error", "Unwrap", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "Schema"}, f.Name); !interfaceMethod {
			want(f.Name, f.Doc)
		}
	}
}

var (
	link  = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	fence = regexp.MustCompile("(?m)^(.*)\n```sh$")
)

// TestDocumentsAreRunAndTheirLinksLead wants every shell block of a document to
// carry the mark by which .ci/run finds and runs it, and every link into the
// project to lead somewhere.
func TestDocumentsAreRunAndTheirLinksLead(t *testing.T) {
	t.Parallel()
	script := text(t, ".ci/run")
	for _, f := range files(t, "*.md") {
		body := text(t, f)
		for _, m := range fence.FindAllStringSubmatch(body, -1) {
			name, marked := strings.CutPrefix(m[1], "<!-- ci: ")
			name = strings.TrimSuffix(name, " -->")
			if !marked || f != "README.md" || !strings.Contains(script, "block "+name) {
				t.Errorf("%s: nothing runs the commands behind %q", f, m[1])
			}
		}
		for _, m := range link.FindAllStringSubmatch(body, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(f), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", f, m[1])
			}
		}
	}
}
