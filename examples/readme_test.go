package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every Go block of the README is in a Go file of the repository, line for line,
// and every line of its router table is in routers_test.go.
func TestReadme(t *testing.T) {
	t.Parallel()
	all := make(map[string]string) // Go files without indentation
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		all[filepath.ToSlash(path)] = unindent(string(text))
		return err
	})
	readme, readErr := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) == 0 {
		t.Error("got no Go block in the README")
	}
	for _, block := range blocks {
		found := false
		for _, text := range all {
			found = found || strings.Contains(text, "\n"+unindent(block[1]))
		}
		if !found {
			t.Errorf("not in any Go file:\n%s", block[1])
		}
	}
	_, table, _ := strings.Cut(string(readme), "\n## Routers\n")
	rows := regexp.MustCompile("(?m)^\\| ([a-z/]+) \\| `(.*)` \\|$").FindAllStringSubmatch(table, -1)
	if len(rows) != 6 {
		t.Errorf("got %d routers in the README, want 6", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(all["../examples/routers/routers_test.go"], "\n"+row[2]+"\n") {
			t.Errorf("%s: not a line of routers_test.go: %s", row[1], row[2])
		}
	}
}

// unindent also removes the marks of doc comments.
func unindent(text string) string {
	return regexp.MustCompile(`(?m)^(//)?\t+`).ReplaceAllString(text, "")
}
