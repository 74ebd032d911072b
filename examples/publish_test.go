package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// .ci/publish pushes the renamed module to an empty repository, with and without
// an identity of git. The clone stays as it is.
func TestPublish(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"git", "bash", "perl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	const identity = "GIT_AUTHOR_NAME=me,GIT_AUTHOR_EMAIL=me@localhost," +
		"GIT_COMMITTER_NAME=me,GIT_COMMITTER_EMAIL=me@localhost"
	for _, env := range []string{"", "," + identity} {
		dir := t.TempDir()
		sh := func(env, script string) string {
			t.Helper()
			env = "GIT_CONFIG_NOSYSTEM=1,GIT_CONFIG_GLOBAL=/dev/null,GOFLAGS=" + env
			out, errs, status := run(t, "", env, "sh", "-c", "cd "+dir+" && "+script)
			check(t, script+out+errs, status, 0)
			return out
		}
		// What is tested is the work tree, not the last commit.
		if err := os.CopyFS(filepath.Join(dir, "clone"), os.DirFS("..")); err != nil {
			t.Fatal(err)
		}
		sh(","+identity, "rm -rf clone/.git && git init -q clone && cd clone && git add -A && "+
			"git commit -qm all")
		sh("", "git init -q --bare published")
		sh(env, `clone/.ci/publish github.com/you/hmacverify "$PWD/published" 2>&1`)
		check(t, "changes in the clone", sh("", "cd clone && git status --porcelain && git tag"), "")
		sh("", "git clone -q --branch v0.1.0 published checkout && cd checkout && go vet ./... && "+
			`test -z "$(gofmt -l .)"`)
		for _, name := range []string{"README.md", "examples/README.md", "go.mod",
			"examples/postgres/go.mod"} {
			text, _ := os.ReadFile(filepath.Join(dir, "checkout", name))
			check(t, name, strings.Contains(string(text), "example.com"), false)
			check(t, name, strings.Contains(string(text), "github.com/you/hmacverify"), true)
		}
		text, _ := os.ReadFile(filepath.Join("..", "README.md"))
		note := regexp.MustCompile(`(?s)\n<!-- until it is published -->\n.*?\n<!-- published -->\n`)
		want := note.ReplaceAllString(string(text), "\n`go get github.com/you/hmacverify`\n")
		want = strings.ReplaceAll(want, "example.com/hmacverify", "github.com/you/hmacverify")
		got, _ := os.ReadFile(filepath.Join(dir, "checkout", "README.md"))
		check(t, "published README", string(got), want)
		check(t, "notes", len(note.FindAllString(string(text), -1)), 2)
	}
	_, errs, status := run(t, "", "", "../.ci/publish", "https://github.com/you/hmacverify")
	check(t, errs, []any{status, strings.HasPrefix(errs, "usage: ")}, []any{2, true})
}
