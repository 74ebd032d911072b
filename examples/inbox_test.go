package examples_test

import (
	"bufio"
	"fmt"
	"os"
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
	return hmacverify.DeliveryID(event, sign(body)) + ".json"
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

const notStored = "500 not stored\n"

// wantPost posts body and checks the response and the bodies then in dir.
func wantPost(t *testing.T, p *process, dir, body, response string, bodies ...string) {
	t.Helper()
	want := map[string]string{}
	for _, stored := range bodies {
		want[inboxName("chat-rated", stored)] = stored
	}
	check(t, p.String(), post(p, "chat-rated", body, sign(body)), response)
	check(t, "files after "+body, readFiles(dir), want)
	if response == notStored {
		file := filepath.Join(dir, inboxName("chat-rated", body))
		waitFor(t, p.log, "ERROR not stored file="+regexp.QuoteMeta(file)+".* err=.+")
	}
}

func wantNoOpenFiles(t *testing.T, p *process, dir string) {
	t.Helper()
	fds, _ := filepath.Glob(fmt.Sprint("/proc/", p.Process.Pid, "/fd/*")) // only on Linux
	for _, fd := range fds {
		file, _ := os.Readlink(fd)
		check(t, "left open: "+file, strings.HasPrefix(file, dir), false)
	}
}

func TestInbox(t *testing.T) {
	t.Parallel()
	dir, want := filepath.Join(t.TempDir(), "deliveries"), map[string]string{}
	for range 2 {
		p := start(t, secret, "inbox", "-dir", dir+"/")
		for _, d := range [][2]string{
			{"chat-rated", rated}, {"chat-rated", " {\n}\r\n"}, {"chat-rated", "\"\xff, \xc3\""},
			{"chat-rated", strings.Repeat("1", 1<<20)},
			{"chat-assigned", "{}"}, {"chat-opened", "{}"}, {"chat-closed", "{}"},
			{"chat-reopened", "{}"}, {"chat-transferred", "{}"}, {"chat-rated", "{}"},
			{"message-created", "{}"},
			// These four are one file.
			{"../new\xff\"\\<event>", "{}"}, {"chatRated", "{}"}, {"", "{}"}, {"Chat-Rated", "{}"},
		} {
			event, body, name := d[0], d[1], inboxName(d[0], d[1])
			result := "stored"
			if _, ok := want[name]; ok {
				result = "duplicate"
			}
			want[name] = body
			check(t, event+" "+body, post(p, event, body, sign(body)), "200 Success!")
			p.waitForLog(t, fmt.Sprintf("INFO %s file=%s", result, filepath.Join(dir, name)))
		}
		p.waitForLog(t, fmt.Sprintf(`event="../new\xff\"\\<event>" key=%q`, key))
		check(t, "forged", post(p, "chat-rated", "3", sign("")), mismatch)
		check(t, "files", readFiles(dir), want)
		p.kill()
	}
	for _, name := range []string{"", inboxName("chat-rated", "{}")} {
		info, _ := os.Stat(filepath.Join(dir, name))
		check(t, "for its owner only: "+name, info.Mode().Perm()&0o077 == 0, true)
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
	p := start(t, secret, "inbox", "-dir", dir)
	for _, body := range []string{"123", "2"} { // their names are taken
		check(t, body, post(p, "chat-rated", body, sign(body)), notStored)
	}
	check(t, "files", readFiles(dir), want)
}

// A limit on file size, 2 or 4 KiB, stands in for a full disk.
func TestInboxDiskFull(t *testing.T) {
	t.Parallel()
	dir, large := filepath.Join(t.TempDir(), "deliveries"), strings.Repeat("1", 5000)
	p := start(t, secret, "sh", "-c", `ulimit -f 4 && exec inbox "$@"`, "sh", "-dir", dir)
	wantPost(t, p, dir, "1", "200 Success!", "1")
	wantPost(t, p, dir, large, notStored, "1")
	wantNoOpenFiles(t, p, dir)
	wantPost(t, p, dir, "2", "200 Success!", "1", "2")
	wantPost(t, start(t, secret, "inbox", "-dir", dir), dir, large, "200 Success!", "1", "2", large)
	wantPost(t, p, dir, large, "200 Success!", "1", "2", large) // a duplicate needs no room
}

// What has the name of a delivery is no duplicate, and the log says why.
func TestInboxNameTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, secret, "inbox", "-dir", dir)
	file := filepath.Join(dir, inboxName("chat-rated", "{}"))
	for script, want := range map[string]string{
		`mkfifo "$0"`: `err="file already exists"`,
		// Reading it would take more memory than the machine has.
		`dd if=/dev/zero of="$0" bs=1 count=1 seek=100000000000`: `err="file already exists"`,
		`ln -s "$0" "$0"`: `too many levels of symbolic links"`, // as any error of reading it
	} {
		run(t, "", "", "sh", "-c", script, file)
		check(t, script, post(p, "chat-rated", "{}", sign("{}")), notStored)
		p.waitForLog(t, want)
		os.Remove(file)
	}
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
		p := start(t, secret, "inbox", "-dir", dir)
		args = fmt.Sprint("-f -o /dev/null -e quiet=path-resolution -p ", p.Process.Pid, " -e ", args)
		strace := command(t, "", "strace", strings.Fields(args)...)
		stderr, _ := strace.StderrPipe()
		err := strace.Start()
		if line, _ := bufio.NewReader(stderr).ReadString('\n'); !strings.Contains(line, " attached") {
			t.Skipf("strace cannot trace here: %v %s", err, line)
		}
		wantPost(t, p, dir, "{}", notStored, stored...)
		wantPost(t, p, dir, "{}", notStored, stored...) // maybe a duplicate
		strace.Process.Kill()
		strace.Wait()
		wantNoOpenFiles(t, p, dir)
		wantPost(t, p, dir, "{}", "200 Success!", "{}")
	}
	// It does not start without hard links, or if a directory cannot sync. If that
	// is the parent of a new one, the next start fails, too.
	syncParent := "fsync:error=EIO -P " + filepath.Dir(dir)
	os.RemoveAll(dir)
	for _, inject := range []string{
		syncParent, syncParent, "linkat:error=EPERM", "fsync:error=EINVAL -P " + dir,
	} {
		script := "exec strace -D -f -o /dev/null -e inject=" + inject + " inbox -dir " + dir
		_, errs, status := run(t, "", secret, "sh", "-c", script)
		want := "-dir must take files, hard links, and syncs: "
		if status != 1 || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: got status %d, %q; want 1 and a line with %q", inject, status, errs, want)
		}
	}
}

// Every sync comes before the call that relies on it.
func TestInboxOrder(t *testing.T) {
	t.Parallel()
	if _, errs, status := run(t, "", "", "strace", "-o", os.DevNull, "true"); status != 0 {
		t.Skipf("strace cannot trace here: %s", errs)
	}
	calls, dir := filepath.Join(t.TempDir(), "calls"), filepath.Join(t.TempDir(), "deliveries")
	const traced = `exec strace -D -f -y -o "$0" -e trace=mkdirat,fsync,linkat,write inbox "$@"`
	p := start(t, secret, "sh", "-c", traced, calls, "-dir", dir)
	for range 2 { // the second is a duplicate
		post(p, "chat-rated", "{}", sign("{}"))
	}
	temporary, syncDir := `\(\d+<`+dir+`/\.inbox-tmp-\d+>`, `fsync\(\d+<`+dir+`>`
	const respond = `"HTTP/1.1 200`
	steps := []string{`mkdirat`, `fsync\(\d+<` + filepath.Dir(dir) + `>`,
		`write` + temporary + `, "{}"`, `fsync` + temporary, `linkat`, syncDir, respond, syncDir, respond}
	waitFor(t, calls, `(?s)`+strings.Join(steps, `.*`))
	// The parent of an old directory, too: a crash may have come before its sync.
	p.kill()
	start(t, secret, "sh", "-c", traced, calls, "-dir", dir)
	waitFor(t, calls, `(?s)`+steps[0]+`.* EEXIST .*`+steps[1])
}

// Two processes on one directory receive the same deliveries and are killed.
func TestInboxKilledUnderLoad(t *testing.T) {
	t.Parallel()
	dir, responses, wg := t.TempDir(), &sync.Map{}, &sync.WaitGroup{}
	for round := range 15 {
		ps := []*process{start(t, secret, "inbox", "-dir", dir), start(t, secret, "inbox", "-dir", dir)}
		for s := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := 0; ; n++ {
					body := fmt.Sprintf(`{"id":"%d %d %d","question":"%05000d"}`, round, s/2, n, n)
					response := post(ps[s%2], "chat-rated", body, sign(body))
					if strings.HasPrefix(response, "no response") { // the process has ended
						return
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
	check(t, "20 deliveries or more", len(stored) >= 20, true)
}
