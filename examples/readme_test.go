package examples_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fileText returns a file of the repository, without indentation and the marks
// of doc comments.
func fileText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^(//)?\t+`).ReplaceAllString(string(text), "")
}

// The README's Go blocks are in handler.go and its tests, line for line, and the
// lines of its router table are in routers_test.go.
func TestReadmeCode(t *testing.T) {
	t.Parallel()
	readme := fileText(t, "README.md")
	tested := fileText(t, "handler.go") + fileText(t, "handler_test.go")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) != 2 {
		t.Errorf("got %d Go blocks in the README, want 2", len(blocks))
	}
	for _, block := range blocks {
		if !strings.Contains(tested, "\n"+block[1]) {
			t.Errorf("not in handler.go or handler_test.go:\n%s", block[1])
		}
	}
	routers := fileText(t, "examples/routers/routers_test.go")
	_, table, _ := strings.Cut(readme, "\n## Routers\n")
	rows := regexp.MustCompile("(?m)^\\| ([^|]+) \\| `(.*)` \\|$").FindAllStringSubmatch(table, -1)
	if len(rows) != 6 {
		t.Errorf("got %d routers in the README, want 6", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(routers, "\n"+row[2]+"\n") {
			t.Errorf("%s: not a line of routers_test.go: %s", row[1], row[2])
		}
	}
}

// What the README links to is there, and so are the examples that it names.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	readme := fileText(t, "README.md")
	anchors := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(readme, -1) {
		anchors["#"+strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	links := regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`).FindAllStringSubmatch(readme, -1)
	if len(links) < 20 {
		t.Errorf("got %d links in the README, want more", len(links))
	}
	for _, link := range links {
		text, target := link[1], link[2]
		if strings.HasPrefix(target, "https://") || anchors[target] {
			continue
		}
		if _, err := os.Stat(filepath.Join("..", target)); err != nil {
			t.Errorf("%s: no heading or file %s", text, target)
			continue
		}
		isExample := strings.HasPrefix(text, "Example")
		if isExample && !strings.Contains(fileText(t, target), "func "+text+"(") {
			t.Errorf("%s: no such function in %s", text, target)
		}
	}
}
