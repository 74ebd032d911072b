package examples_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
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
	listener, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := listener.Addr().String()
	listener.Close()
	program := filepath.Join(dir, "readme")
	os.Mkdir(program, 0o700)
	main := strings.Replace(block[1], `":8000"`, strconv.Quote(addr), 1)
	os.WriteFile(filepath.Join(program, "main.go"), []byte(main), 0o600)
	out, errs, status := run(t, "", "GOFLAGS=", "go", "-C", program, "build", "-o", "program")
	check(t, out+errs, status, 0)

	bin := filepath.Join(program, "program")
	_, errs, status = run(t, "", "GUURU_SECRET=", bin)
	check(t, errs, status, 1)

	p := &process{Cmd: command(t, secret, bin), addr: addr, log: filepath.Join(t.TempDir(), "log")}
	log, _ := os.Create(p.log)
	defer log.Close()
	p.Stderr = log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.addr += "/guuru"
	body := fileText(t, "testdata/example2.json")
	sig := fileText(t, "testdata/example2.sig")
	for begin := time.Now(); post(p, "chat-rated", body, sig) != "200 "; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("got %s, want 200", post(p, "chat-rated", body, sig))
		}
	}
	p.waitForLog(t, `chat-rated "João" 1`)
	check(t, "forged", post(p, "chat-rated", body+" ", sig), mismatch)
	p.waitForLog(t, "WARN rejected err=")
}

// The README's line for publishing replaces each note, and nothing else.
func TestReadmePublish(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("perl"); err != nil {
		t.Skip("no perl")
	}
	text, _ := os.ReadFile(filepath.Join("..", "README.md"))
	line := regexp.MustCompile(`(?m)^(perl -0pi .*) &&$`).FindSubmatch(text)
	if line == nil {
		t.Fatal("the README has no line with perl -0pi")
	}
	copied := filepath.Join(t.TempDir(), "README.md")
	os.WriteFile(copied, text, 0o600)
	out, errs, _ := run(t, "", "", "sh", "-c", `cd "$0" && `+string(line[1]), filepath.Dir(copied))
	check(t, "output", out+errs, "")
	got, _ := os.ReadFile(copied)
	note := regexp.MustCompile(`(?s)\n<!-- until it is published -->\n.*?\n<!-- published -->\n`)
	want := note.ReplaceAll(text, []byte("\n`go get github.com/you/hmacverify`\n"))
	check(t, "published README", string(got), string(want))
	check(t, "notes", strings.Count(string(got), "\n`go get "), 2)
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

// Every file, heading, and example that the README links to exists.
func TestReadmeLinks(t *testing.T) {
	t.Parallel()
	readme := fileText(t, "README.md")
	anchors := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(readme, -1) {
		anchors["#"+strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	links := regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`).FindAllStringSubmatch(readme, -1)
	if len(links) < 15 {
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
