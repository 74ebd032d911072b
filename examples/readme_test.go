package examples_test

import (
	"fmt"
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

// The README's first program, in a module beside the clone, accepts a documented
// delivery and rejects a forged one.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	readme := fileText(t, "README.md")
	block := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindStringSubmatch(readme)
	if block == nil {
		t.Fatal("the README has no program")
	}
	program := filepath.Join(dir, "readme")
	os.Mkdir(program, 0o700)
	main := strings.Replace(block[1], `":8000"`, `"127.0.0.1:0"`, 1)
	os.WriteFile(filepath.Join(program, "main.go"), []byte(main), 0o600)
	out, errs, status := run(t, "", "GOFLAGS=", "go", "-C", program, "build", "-o", "program")
	check(t, out+errs, status, 0)

	bin := filepath.Join(program, "program")
	_, errs, status = run(t, "", "GUURU_SECRET=", bin)
	check(t, errs, status, 1)

	p := &process{Cmd: command(t, secret, bin), log: filepath.Join(t.TempDir(), "log")}
	log, _ := os.Create(p.log)
	defer log.Close()
	p.Stderr = log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.addr = waitFor(t, p.log, `listening on (.+)\n`)[1] + "/guuru"
	for _, tc := range []struct{ event, body, want, log string }{
		{"chat-rated", fileText(t, "testdata/example2.json"), "200 ", `chat-rated: "João" rated 1`},
		{"chat-rated", `{"status":"closed"}`, "200 ", `chat-rated: ignored, status "closed"`},
		{"chat-rated", "[]", "500 payload not decoded\n",
			"chat-rated: payload not decoded: hmacverify: unexpected payload structure: "},
		{"message-created", "[]", "200 ", `ignored: "message-created"`},
		{strings.Repeat("x", 1000), "{}", "200 ", `ignored: "` + strings.Repeat("x", 100) + "\"\n"},
	} {
		check(t, tc.event+tc.body, post(p, tc.event, tc.body, sign(tc.body)), tc.want)
		p.waitForLog(t, tc.log)
	}
	check(t, "forged", post(p, "chat-rated", "{} ", sign("{}")), mismatch)
	p.waitForLog(t, "WARN rejected err=")
}

// The lines of the README's router table are in routers_test.go.
func TestReadmeRouters(t *testing.T) {
	t.Parallel()
	readme := fileText(t, "README.md")
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

// anchors returns the headings of a page as links have them.
func anchors(t *testing.T, page string) map[string]bool {
	all := make(map[string]bool)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	for _, match := range heading.FindAllStringSubmatch(fileText(t, page), -1) {
		text := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(match[1]), "")
		all[strings.ReplaceAll(text, " ", "-")] = true
	}
	return all
}

// Every file, heading, and line of an example that the pages link to exists.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	count := 0
	for _, page := range []string{"README.md", "examples/README.md", ".github/CONTRIBUTING.md"} {
		link := regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`)
		for _, match := range link.FindAllStringSubmatch(fileText(t, page), -1) {
			text, target := match[1], match[2]
			if strings.HasPrefix(target, "https://") {
				continue
			}
			count++
			name, anchor, _ := strings.Cut(target, "#")
			file := page
			if name != "" {
				file = filepath.Join(filepath.Dir(page), name)
			}
			if _, err := os.Stat(filepath.Join("..", file)); err != nil {
				t.Errorf("%s: %s: %v", page, text, err)
				continue
			}
			if strings.HasPrefix(text, "Example") {
				before, _, found := strings.Cut(fileText(t, file), "func "+text+"(")
				line := fmt.Sprint("L", strings.Count(before, "\n")+1)
				if !found || anchor != line {
					t.Errorf("%s: %s: got %s, want #%s, if it is there: %t", page, text, target, line, found)
				}
			} else if anchor != "" && !anchors(t, file)[anchor] {
				t.Errorf("%s: %s: no heading %s in %s", page, text, anchor, file)
			}
		}
	}
	check(t, "20 links or more", count >= 20, true)
}
