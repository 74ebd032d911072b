package integration

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every Go block of the README is in a Go file of the repository, line for
// line, and every line of its router table is in routers_test.go.
func TestReadme(t *testing.T) {
	files := make(map[string]string) // without indentation
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			name, _ := filepath.Rel(root, path)
			files[name] = unindent(read(t, filepath.ToSlash(name)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	readme := read(t, "README.md")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) == 0 {
		t.Error("got no Go block in the README")
	}
	for _, block := range blocks {
		found := false
		for _, text := range files {
			found = found || strings.Contains(text, "\n"+unindent(block[1]))
		}
		if !found {
			t.Errorf("not in any Go file:\n%s", block[1])
		}
	}
	_, table, _ := strings.Cut(readme, "## Behind routers")
	rows := regexp.MustCompile("(?m)^\\| ([a-z/]+) \\| `(.*)` \\|$").FindAllStringSubmatch(table, -1)
	if len(rows) != 6 {
		t.Errorf("got %d routers in the README, want 6", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(files[filepath.Join(".ci", "integration", "routers_test.go")], "\n"+row[2]+"\n") {
			t.Errorf("%s: not a line of routers_test.go: %s", row[1], row[2])
		}
	}
}

func unindent(text string) string {
	return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(text, "")
}
