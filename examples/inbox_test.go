package examples_test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/hmacverify"
)

// inboxName returns the name under which a delivery is stored.
func inboxName(event, body string) string {
	return hmacverify.DeliveryID(event, hmacverify.Sign("secr3t", []byte(body))) + ".json"
}

// readFiles returns what is in each file of dir. A directory counts as an empty
// file.
func readFiles(dir string) map[string]string {
	files := map[string]string{}
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		text, _ := os.ReadFile(filepath.Join(dir, entry.Name()))
		files[entry.Name()] = string(text)
	}
	return files
}

// wantPost posts body and checks the response and the bodies then in dir.
func wantPost(t *testing.T, p *process, dir, body, response string, bodies ...string) {
	t.Helper()
	want := map[string]string{}
	for _, stored := range bodies {
		want[inboxName("chat-rated", stored)] = stored
	}
	if got, files := post(t, p, body), readFiles(dir); got != response || !maps.Equal(files, want) {
		t.Errorf("%s: %.10s: got %q, files %.90q; want %q, %.90q", p, body, got, files, response, want)
	}
	if response == "500 not stored\n" {
		file := filepath.Join(dir, inboxName("chat-rated", body))
		p.waitForLog(t, "ERROR not stored file="+file)
	}
}

func TestInbox(t *testing.T) {
	t.Parallel()
	dir, want := filepath.Join(t.TempDir(), "deliveries"), map[string]string{}
	example, _ := documented(t, 2)
	for when := range 2 {
		p := start(t, []string{secret}, "inbox", "-dir", dir+"/")
		for _, d := range [][2]string{
			{"chat-rated", example}, {"chat-rated", " {\n}\r\n"}, {"chat-rated", "\"\xff, \xc3\""},
			{"chat-rated", strings.Repeat("1", 100_000)},
			{"chat-assigned", "{}"}, {"chat-opened", "{}"}, {"chat-closed", "{}"},
			{"chat-reopened", "{}"}, {"chat-transferred", "{}"}, {"chat-rated", "{}"},
			{"message-created", "{}"},
			// These four are one file.
			{"../new\xff\"\\<event>", "{}"}, {"chatRated", "{}"}, {"", "{}"}, {"Chat-Rated", "{}"},
		} {
			event, body, name := d[0], d[1], inboxName(d[0], d[1])
			result := map[bool]string{false: "stored", true: "duplicate"}[want[name] == body]
			want[name] = body
			got, err := try(p, event, body, hmacverify.Sign("secr3t", []byte(body)))
			if got != "200 Success!" || err != nil {
				t.Errorf("start %d: %q %.40q: got %q, %v; want 200", when, event, body, got, err)
			}
			p.waitForLog(t, fmt.Sprintf("INFO %s file=%s", result, filepath.Join(dir, name)))
		}
		p.waitForLog(t, fmt.Sprintf(`event="../new\xff\"\\<event>" key=%q`, key))
		if got, err := try(p, "chat-rated", "3", strings.Repeat("0", 64)); got != mismatch || err != nil {
			t.Errorf("forged: got %q, %v; want %q", got, err, mismatch)
		}
		if got := readFiles(dir); !maps.Equal(got, want) {
			t.Errorf("start %d: got %.60q\nwant %.60q", when, got, want)
		}
		p.kill()
	}
	for _, name := range []string{"", inboxName("chat-rated", "{}")} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: got %v, %v; want a mode for its owner only", name, info, err)
		}
	}
}

// A start removes old temporary files, however many. Nothing else is removed or
// replaced.
func TestInboxLeavesOtherFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string, minutes time.Duration) {
		os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600) // fails for a directory
		os.Chtimes(filepath.Join(dir, name), time.Time{}, time.Now().Add(-minutes*time.Minute))
	}
	os.Mkdir(filepath.Join(dir, ".inbox-tmp-3"), 0o700)
	os.Mkdir(filepath.Join(dir, inboxName("chat-rated", "2")), 0o700)
	for _, name := range []string{
		inboxName("chat-rated", "123"), "notes", ".hidden", "1", ".inbox-tmp-", ".inbox-tmp-1x",
		".inbox-tmp-1.json", "x.inbox-tmp-1", ".inbox-tmp-1\n", ".inbox-tmp-3",
	} {
		put(name, 99)
	}
	put(".inbox-tmp-2", 59)
	os.Symlink("notes", filepath.Join(dir, ".inbox-tmp-4"))
	want := readFiles(dir)
	for n := range 2500 {
		put(fmt.Sprint(".inbox-tmp-42", n), 61)
	}
	p := start(t, []string{secret}, "inbox", "-dir", dir)
	if got := post(t, p, "123") + post(t, p, "2"); got != "500 not stored\n500 not stored\n" {
		t.Errorf("got %q, want 500 for two names that are taken", got)
	}
	if got := readFiles(dir); !maps.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for dir, want := range map[string]string{
		"": "no such file", dir + "/absent/inbox": "no such file",
		dir + "/notes": "not a directory", "/proc": "/proc",
	} {
		_, errs, status := run(t, "", secret, "inbox", "-addr", "127.0.0.1:0", "-dir", dir)
		if status == 0 || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%q: got status %d, %q; want a nonzero status and one line with %q",
				dir, status, errs, want)
		}
	}
}

// A limit on file size stands in for a full disk. Later, the directory is gone.
func TestInboxDiskFull(t *testing.T) {
	t.Parallel()
	dir, large := filepath.Join(t.TempDir(), "deliveries"), strings.Repeat("1", 5000)
	limited := `ulimit -f 4 && exec "$0" "$@"` // 2 or 4 KiB
	inbox := command(t, nil, "inbox").Path
	p := start(t, []string{secret}, "/bin/sh", "-c", limited, inbox, "-dir", dir)
	wantPost(t, p, dir, "1", "200 Success!", "1")
	wantPost(t, p, dir, large, "500 not stored\n", "1")
	wantPost(t, p, dir, "2", "200 Success!", "1", "2")
	other := start(t, []string{secret}, "inbox", "-dir", dir)
	wantPost(t, other, dir, large, "200 Success!", "1", "2", large)
	wantPost(t, p, dir, large, "200 Success!", "1", "2", large) // a duplicate needs no room
	os.RemoveAll(dir)
	wantPost(t, p, dir, "2", "500 not stored\n")
	os.Mkdir(dir, 0o700)
	wantPost(t, p, dir, "2", "200 Success!", "2")
}

// A failed call gives 500. The same delivery succeeds once the cause is gone.
func TestInboxCallFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for args, stored := range map[string][]string{ // stored meanwhile
		"inject=openat:error=EROFS":            nil,
		"inject=fsync:error=EIO":               nil,
		"inject=linkat:error=ENOSPC":           nil,
		"inject=fsync:error=EIO -P " + dir:     {"{}"}, // only on the directory itself
		"inject=openat:error=EMFILE -P " + dir: {"{}"},
	} {
		os.RemoveAll(dir)
		p := start(t, []string{secret}, "inbox", "-dir", dir)
		args = fmt.Sprint("-f -o /dev/null -e quiet=path-resolution -p ", p.Process.Pid, " -e ", args)
		strace := exec.Command("strace", strings.Fields(args)...)
		stderr, _ := strace.StderrPipe()
		err := strace.Start()
		if line, _ := bufio.NewReader(stderr).ReadString('\n'); !strings.Contains(line, " attached") {
			t.Skipf("strace cannot trace here: %v %s", err, line)
		}
		wantPost(t, p, dir, "{}", "500 not stored\n", stored...)
		wantPost(t, p, dir, "{}", "500 not stored\n", stored...) // maybe a duplicate
		strace.Process.Kill()
		strace.Wait()
		wantPost(t, p, dir, "{}", "200 Success!", "{}")
	}
	// Without hard links, as on FAT, it does not start.
	const traced = `exec strace -f -o /dev/null -e inject=linkat:error=EPERM "$0" "$@"`
	inbox := command(t, nil, "inbox").Path
	_, errs, status := run(t, "", secret, "/bin/sh", "-c", traced, inbox, "-dir", dir)
	if status != 1 || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "hard links") {
		t.Errorf("without links: got status %d, %q; want 1 and a line about hard links", status, errs)
	}
}

// Every sync comes before the call that relies on it.
func TestInboxOrder(t *testing.T) {
	t.Parallel()
	calls, dir := filepath.Join(t.TempDir(), "calls"), filepath.Join(t.TempDir(), "deliveries")
	const traced = `exec strace -D -f -y -o "$0" -e trace=mkdirat,fsync,linkat,write "$@"`
	inbox := command(t, nil, "inbox").Path
	p := launch(t, []string{secret}, "/bin/sh", "-c", traced, calls, inbox, "-dir", dir)
	if p.addr == "" {
		t.Skipf("strace cannot trace here: %s", p.logged())
	}
	post(t, p, "{}")
	post(t, p, "{}") // a duplicate
	p.kill()
	text, _ := os.ReadFile(calls)
	temporary, syncDir := `\(\d+<\S+/\.inbox-tmp-\d+>`, `fsync\(\d+<`+dir+`>`
	const respond = `"HTTP/1.1 200`
	steps := []string{`mkdirat`, `fsync\(\d+<` + filepath.Dir(dir) + `>`,
		`write` + temporary + `, "{}"`, `fsync` + temporary, `linkat`, syncDir, respond, syncDir, respond}
	if !regexp.MustCompile(`(?s)` + strings.Join(steps, `.*`)).Match(text) {
		t.Errorf("got calls\n%s\nwant %q in this order", text, steps)
	}
}

// Two processes on one directory receive the same deliveries and are killed.
func TestInboxKilledUnderLoad(t *testing.T) {
	t.Parallel()
	dir, responses, wg := t.TempDir(), &sync.Map{}, &sync.WaitGroup{}
	for round := range 15 {
		var ps []*process
		for range 2 {
			ps = append(ps, start(t, []string{secret}, "inbox", "-dir", dir))
		}
		for s := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := 0; ; n++ {
					body := fmt.Sprintf(`{"id":"%d %d %d","question":"%05000d"}`, round, s/2, n, n)
					sig := hmacverify.Sign("secr3t", []byte(body))
					response, err := try(ps[s%2], "chat-rated", body, sig)
					if err != nil {
						return // the process has ended
					}
					responses.Store(inboxName("chat-rated", body)+" "+response, true)
				}
			}()
		}
		for _, p := range ps {
			time.Sleep(time.Duration(4*round) * time.Millisecond)
			p.kill()
		}
		wg.Wait()
	}
	stored := readFiles(dir)
	for name, body := range stored {
		if strings.HasSuffix(name, ".json") && name != inboxName("chat-rated", body) {
			t.Errorf("%s is not the name of %.60q, %d bytes", name, body, len(body))
		}
	}
	for response := range responses.Range {
		if name, ok := strings.CutSuffix(response.(string), " 200 Success!"); !ok || stored[name] == "" {
			t.Errorf("%s: want 200 and the file", response)
		}
	}
	if len(stored) < 20 {
		t.Errorf("got %d deliveries under load, want more", len(stored))
	}
}
