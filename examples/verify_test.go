package examples_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"example.com/hmacverify"
)

func compress(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.String()
}

func encode64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func swap(text string, pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(text)
}

func utf16LE(text string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		b.WriteString(string([]byte{byte(unit), byte(unit >> 8)}))
	}
	return b.String()
}

// chat is a body, signed with secr3t. The others are rewritten versions.
const (
	chat = `{"user":{"name":"João 😀","email":"","locale":"en"},` +
		`"question":"a/b <c> \n \"+\" \\u003c 50%","rating":1}`
	spaced = `{ "user": {"name": "João 😀", "email": "", "locale": "en"},` + "\r\n" +
		`"question": "a/b <c> \n \"+\" \\u003c 50%",` + "\t" + `"rating" :1 }`
	// As PHP, Python, .NET, and Go write it.
	escaped = `{"user":{"name":"Jo\u00E3o \ud83d\ude00","email":"","locale":"en"},` +
		`"question":"a\/b \u003cc\u003E \u000a \u0022+\u0022 \u005cu003c 50%","rating":1}`
	sorted = `{"question":"a/b <c> \n \"+\" \\u003c 50%","rating":1,` +
		`"user":{"email":"","locale":"en","name":"João 😀"}}`
	// With json.dumps(..., sort_keys=True).
	python = `{"question": "a/b <c> \n \"+\" \\u003c 50%", "rating": 1, ` +
		`"user": {"email": "", "locale": "en", "name": "Jo\u00e3o \ud83d\ude00"}}`
)

var sigOf = sign(chat)

func TestVerifyExplainsBodies(t *testing.T) {
	t.Parallel()
	mojibake := swap(chat, "ã", "Ã£", "😀", "ð\u009f\u0098\u0080")
	mojibake1252 := swap(chat, "ã", "Ã£", "😀", "ðŸ˜€")
	lines := swap(chat, ",", ",\n")
	latin1 := `{"user":{"name":"João – "},"rating":1}`
	const raw = "; JSON was parsed and written again: verify the raw bytes before that"
	const spaces = "the body has spaces or line breaks outside strings"
	const escapes = "the body has escapes that JSON does not need"
	const order = "the body has its fields in another order"
	const event = "the body is inside a JSON event"
	long := strconv.Quote(strings.Repeat("x", 1000)) // no body
	for _, tc := range []struct{ body, signed, want string }{
		{encode64(chat) + "\n", chat, "the body is Base64"},
		{base64.RawURLEncoding.EncodeToString([]byte(chat)), chat, "the body is Base64"},
		{compress(chat), chat, "the body is gzip"},
		{fmt.Sprintf("%X\n%x\n", chat[:30], chat[30:]), chat, "the body is in hex"},
		{url.PathEscape(chat), chat, "the body is percent-encoded, as in a form"},
		{url.QueryEscape(chat) + "=", chat, "the body is in a form"},
		{"a=b&payload=" + url.QueryEscape(chat) + "&c=d", chat,
			"the body is the value of payload in a form"},
		{strconv.Quote(chat), chat, "the body is a JSON string"},
		{swap(chat, `\`, `\\`, `"`, `\"`), chat, "the body has backslashes before quotes"},
		{swap(chat, `"`, `\"`), chat, "the body has backslashes before quotes"},
		{`[{"headers": {"id": 1}, "body": ` + strconv.Quote(chat) + `, "x": ` + long + `}]`, chat, event},
		{`{"body": ` + strconv.Quote(encode64(chat)) + `, "x": ` + long + `}`, chat,
			"the body is in Base64 inside a JSON event"},
		{`{"Records": [{"body": ` + strconv.Quote(`{"Message": `+strconv.Quote(chat)+`}`) + `}]}`, chat,
			event + "; " + event},
		{`{"x": ` + strconv.Quote(url.QueryEscape(chat)) + `}`, chat, event + "; the body is in a form"},
		{`{"user": 1, "detail": {"chat": ` + spaced + `, "x": ` + long + `}}`, spaced, event},
		{`{"detail": ` + sorted + `}`, chat, event + "; " + order + raw},
		{"HTTP/1.1 200 OK\r\nA:\r\nNEL: {\"a\": 1}\r\n\r\n" + chat, chat, "the body has HTTP headers before it"},
		{"17:00 IP x\nE..\x00POST / HTTP/1.1\r\nA: b\r\n\r\n" + chat, chat,
			"the body has HTTP headers before it"},
		{html.EscapeString(chat), chat, "the body has HTML entities"},
		{"\ufeff" + chat, chat, "the body begins with a byte order mark"},
		{mojibake, chat, "the body is UTF-8 that was read as Latin-1 or Windows-1252"},
		{mojibake1252, chat, "the body is UTF-8 that was read as Latin-1 or Windows-1252"},
		{swap(latin1, "ã", "\xe3", "–", "\x96"), latin1, "the body is in Latin-1 or Windows-1252"},
		{utf16LE(chat), chat, "the body is in UTF-16"},
		{"\xfe\xff\x00{\x00}", "{}", "the body is in UTF-16"},
		{"{\x00}\x00", "{}", "the body is in UTF-16"},
		{chat + "\r\n", chat, "the body has a line break at its end"},
		{chat + " ", chat, "the body has spaces around it"},
		{lines, lines + "\n", "the body lost the line break at its end"},
		{lines, lines + "\r\n", "the body lost the line break at its end"},
		{swap(lines, "\n", "\r\n"), lines, "the body has CRLF in place of LF"},
		{"2026-11-27 {info} body=" + chat + "%", chat, "the body has other text around it"},
		{"8d\r\n" + chat + "\r\n0\r\n\r\n", chat, "the body has other text around it"},
		{spaced, chat, spaces + raw},
		{escaped, chat, escapes + raw},
		{sorted, chat, order + raw},
		{`{"rating":1,"user":{"isLead":true,"locale":"en"}}`,
			`{"user":{"isLead":true,"locale":"en"},"rating":1}`, order + raw},
		{swap(chat, "/", `\/`), chat, escapes + raw},
		{swap(chat, `""`, `null`), chat, "the body has null in place of empty strings" + raw},
		{swap(chat, `"email":"",`, ""), chat, "the body lost its empty email" + raw},

		{encode64(encode64(chat)), chat, "the body is Base64; the body is Base64"},
		{encode64(compress(chat)), chat, "the body is Base64; the body is gzip"},
		{encode64("\ufeff" + chat), chat, "the body is Base64; the body begins with a byte order mark"},
		{python, chat, spaces + "; " + escapes + "; " + order + raw},
		{encode64("body: " + swap(chat, `""`, `null`)), chat, "the body is Base64; " +
			"the body has null in place of empty strings; the body has other text around it" + raw},
	} {
		out, errs, status := run(t, tc.body, secret, "verify", "-sig", sign(tc.signed), "-")
		check(t, tc.body, out+errs, "-: to fix: "+tc.want+"\n")
		check(t, "status after "+tc.want, status, 1)
	}
}

func TestVerifyExplainsSecretsAndSignatures(t *testing.T) {
	t.Parallel()
	binary, _ := hex.DecodeString(sigOf)
	const is = "GUURU_SECRET "
	const affixed = "the signature has a prefix, quotes, spaces, or other text around it"
	const several = "the signature is one of several, joined by a comma"
	others := strings.Join(slices.Repeat([]string{sign("{}")}, 4), ",")
	const inside = is + "has spaces, line breaks, another case or alphabet, or no padding inside it"
	const decoded = "was decoded from %s, though Guuru signs with the text"
	for _, tc := range []struct{ secret, signedWith, sig, want string }{
		{"secr3t\r\n", "secr3t", "", is + "begins or ends with a line break"},
		{`secr3t\n`, "secr3t", "", is + "begins or ends with a line break"},
		{" secr3t\t", "secr3t", "", is + "has spaces around it"},
		{"\u200bsecr3t\ufeff", "secr3t", "", is + "has invisible characters around it"},
		{`"secr3t"`, "secr3t", "", is + "has quotes around it"},
		{"„secr3t”", "secr3t", "", is + "has quotes around it"},
		{"secr3t # of 2026", "secr3t", "", is + "has a comment after it"},
		{"GUURU_SECRET=secr3t", "secr3t", "", is + "begins with a variable's name"},
		{"pa$$word", "pa$word", "", is + "has $$ in place of $"},
		{`pa\$w\!rd`, "pa$w!rd", "", is + "has backslashes before characters"},
		{"a&amp;b", "a&b", "", is + "has HTML entities"},
		{encode64("secr3t"), "secr3t", "", is + "is Base64"},
		{"73656372 3374", "secr3t", "", is + "is in hex"},
		{"secr%33t+", "secr3t+", "", is + "is percent-encoded"},
		{"secr%33t+", "secr3t ", "", is + "is percent-encoded"},
		{"se\ncr 3t", "secr3t", "", inside},
		{"7365 6372\n33FF", "7365637233ff", "", inside},
		{"_-8", "/+8=", "", inside},
		{"/+8=", "_-8=", "", inside},
		{"/+8=", "/+8", "", inside},
		{"secr3t", encode64("secr3t"), "", is + fmt.Sprintf(decoded, "Base64")},
		{"secr3t", "736563723374", "", is + fmt.Sprintf(decoded, "hex")},

		{encode64("secr3t\n"), "secr3t", "",
			is + "is Base64; " + is + "begins or ends with a line break"},
		{`export GUURU_SECRET="secr3t"`, "secr3t", "",
			is + "begins with a variable's name; " + is + "has quotes around it"},

		{"secr3t", "secr3t", strings.ToUpper(sigOf), "the signature is in upper case"},
		{"secr3t", "secr3t", "sha256=" + sigOf, affixed},
		{"secr3t", "secr3t", `["` + sigOf + "\"]\n", affixed},
		{"secr3t", "secr3t", "X-Guuru-Hmac-Sha256: " + sigOf, affixed},
		{"secr3t", "secr3t", sigOf + " *body.json", affixed},
		{"secr3t", "secr3t", "0x" + sigOf, affixed},
		{"secr3t", "secr3t", "sha256-" + sigOf + ";", affixed},
		{"secr3t", "secr3t", "sha256=" + base64.URLEncoding.EncodeToString(binary),
			affixed + "; the signature is Base64"},
		{"secr3t", "secr3t", sigOf + ", " + others, several},
		{"secr3t", "secr3t", others + "; " + sigOf, several},
		{"secr3t", "secr3t", sign("{}") + "," + sigOf + "," + others, several + "; " + several},
		{"secr3t", "secr3t", others + "," + sigOf + "," + sign("{}"), several + "; " + several},
		{"secr3t", "secr3t", encode64(string(binary)), "the signature is Base64"},
		{"secr3t", "secr3t", base64.RawURLEncoding.EncodeToString(binary), "the signature is Base64"},
		{"secr3t", "secr3t", encode64(sigOf), "the signature is Base64 of its digits"},

		{"'secr3t'", "secr3t", "sha256=" + strings.ToUpper(sigOf), is + "has quotes around it; " +
			"the signature is in upper case; " + affixed},
	} {
		sig := cmp.Or(tc.sig, hmacverify.Sign(tc.signedWith, []byte(chat)))
		out, errs, status := run(t, chat, "GUURU_SECRET="+tc.secret, "verify", "-sig", sig, "-")
		check(t, tc.secret+" "+tc.sig, out+errs, "-: to fix: "+tc.want+"\n")
		check(t, "status after "+tc.want, status, 1)
	}
}

// A body that no change explains, or that a stranger altered, is not valid.
func TestVerifyGuesses(t *testing.T) {
	t.Parallel()
	const (
		another = "it may be another body, or another secret " +
			"(a shell or compose may have cut it at $ or #)"
		notJSON = "the body is not JSON: it may have been extended, cut, or encoded"
		form    = "the signature has %d characters, not 64 hex digits"
	)
	for _, tc := range []struct{ body, secret, sig, want string }{
		{"\n", "secr3t", sigOf, "the body is empty: something may have consumed it"},
		{chat[:99], "secr3t", sigOf, "the body may be truncated: it ends before its JSON does"},
		{`{"question":"a\`, "secr3t", sigOf, "the body may be truncated: it ends before its JSON does"},
		{swap(chat, "ã", "\ufffd"), "secr3t", sigOf,
			"the body has U+FFFD: it may have been decoded as text"},
		{chat + chat, "secr3t", sigOf, notJSON},
		{chat, "${SECRET}", sigOf, "GUURU_SECRET may be a variable that was not " +
			"expanded (what a shell or compose cuts from $ or # on cannot be recovered)"},
		{chat, "secr3t", sigOf[:40], fmt.Sprintf(form, 40)},
		{chat, "secr3t", sigOf[:43], fmt.Sprintf(form, 43)}, // could be Base64
		{chat, "secr3t", "sig=" + sigOf[:40], fmt.Sprintf(form, 44)},
		{chat, "secr3t", sigOf + "0", fmt.Sprintf(form, 65)},
		{chat, "secr3t", sigOf[:9] + "Ol" + sigOf[11:], `the signature has "O" among its hex digits`},

		{chat, "other", sigOf, another},
		{chat + "\n", "other", hmacverify.Sign("", []byte(chat)), another}, // the empty key
		{swap(chat, "50%", "60%"), "secr3t", sigOf, another},
		{swap(chat, "50%", "50 %"), "secr3t", sigOf, another},
		{swap(chat, `,"locale":"en"`, ""), "secr3t", sigOf, another},
		{swap(chat, `"rating"`, `"Rating"`), "secr3t", sigOf, another},
		{swap(chat, `"rating":1`, `"rating":5,"rating":1`), "secr3t", sigOf, another},
		{swap(chat, `"rating":1`, `"rating":1,"id":""`), "secr3t", sigOf, another},
		{swap(sorted, `"rating":1`, `"rating":1,"Rating":1`), "secr3t", sigOf, another},
		{swap(sorted, `"rating":1`, `"note":1`), "secr3t", sigOf, another},
		{swap(sorted, `"rating":1`, `"Rating":1`), "secr3t", sigOf, another},
	} {
		out, errs, status := run(t, tc.body, "GUURU_SECRET="+tc.secret, "verify", "-sig", tc.sig, "-")
		check(t, tc.body, out+errs, "-: not valid: "+tc.want+"\n")
		check(t, "status after "+tc.want, status, 1)
	}
}

// What only looks like a change is not called one: a stranger could have made it.
func TestVerifyIsNotMisled(t *testing.T) {
	t.Parallel()
	const evil = `{"rating":9,"evil":1}`
	broken := compress(chat)
	broken = broken[:len(broken)-8] + "checksum"
	for _, tc := range []struct{ body, secret, signedWith, signed string }{
		{evil, "a1-9fKq2mZx7", "\xa1", evil}, // hex at its beginning
		{evil, "0000", "", evil},             // the empty key, in hex
		{evil, "AAAA", "", evil},             // the empty key, in Base64
		{fmt.Sprintf("%x!%s", chat, evil), "secr3t", "secr3t", chat},
		{base64.RawStdEncoding.EncodeToString([]byte(`{"id":"123"}`)) + "!" + evil, "secr3t", "secr3t",
			`{"id":"123"}`},
		{`{"rating":5,"question":"note: evil"}` + "\n\n" + chat, "secr3t", "secr3t", chat},
		{`{"question":"a\nb"}`, "secr3t", "secr3t", `{"question":"anb"}`},
		{`{"question":"a+b"}`, "secr3t", "secr3t", `{"question":"a b"}`},
		{`{"question":"\ud800"}`, "secr3t", "secr3t", "{\"question\":\"\ufffd\"}"},
		{"<html>", "secr3t", "secr3t", ""}, // no JSON is not an empty body
		{compress(chat) + evil, "secr3t", "secr3t", chat},
		{broken, "secr3t", "secr3t", chat},
	} {
		sig := hmacverify.Sign(tc.signedWith, []byte(tc.signed))
		out, errs, _ := run(t, tc.body, "GUURU_SECRET="+tc.secret, "verify", "-sig", sig, "-")
		if !strings.HasPrefix(out, "-: not valid: ") || errs != "" {
			t.Errorf("%.60q, %s: got %s%s, want not valid", tc.body, tc.secret, out, errs)
		}
	}
}

// The signature is in the name of a file. Every file gets one line.
func TestVerifyFiles(t *testing.T) {
	t.Parallel()
	dir, sig := t.TempDir(), sign("{}")
	put := func(name, body string) string {
		os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600)
		return filepath.Join(dir, name)
	}
	stored := put("chat-rated-"+sig+".json", "{}")
	previous := put(hmacverify.Sign("old", []byte("{}")), "{}")
	kept := put("mismatch-"+sig+".json", "{}\n")
	unnamed := put("body.json", "{}")
	large := put("large", strings.Repeat(" ", 2<<20+1))
	broken := put("a\n\x1b\u2028\xff-"+sig, "{}")
	fifo := filepath.Join(dir, "fifo")
	run(t, "", "", "mkfifo", fifo)
	const irregular = ": not a regular file of at most 2097152 bytes\n"
	const fix = ": to fix: "
	for _, tc := range []struct {
		files     []string
		env, want string
		status    int
	}{
		{[]string{stored}, secret, stored + ": valid\n", 0},
		{[]string{stored, previous}, secret + ",GUURU_SECRET_PREVIOUS=old",
			stored + ": valid\n" + previous + ": valid with GUURU_SECRET_PREVIOUS\n", 0},
		{[]string{stored}, "GUURU_SECRET=old,GUURU_SECRET_PREVIOUS='secr3t'",
			stored + fix + "GUURU_SECRET_PREVIOUS has quotes around it\n", 1},
		{[]string{unnamed, "absent", kept, stored}, secret,
			unnamed + ": not valid: no signature: set -sig, " +
				"or put its 64 hex digits into the file's name\n" +
				"absent: open absent: no such file or directory\n" +
				kept + fix + "the body has a line break at its end\n" + stored + ": valid\n", 1},
		{[]string{kept}, "GUURU_SECRET=new,GUURU_SECRET_PREVIOUS=secr3t", kept + fix +
			"the body has a line break at its end; GUURU_SECRET_PREVIOUS is the secret that fits\n", 1},
		{[]string{dir, fifo, os.DevNull, large}, secret,
			dir + irregular + fifo + irregular + os.DevNull + irregular + large + irregular, 1},
		{[]string{broken}, secret, dir + `/a\n\x1b\u2028?-` + sig + ": valid\n", 0},
	} {
		out, errs, status := run(t, "", tc.env, "verify", tc.files...)
		check(t, fmt.Sprint(tc.files), out+errs, tc.want)
		check(t, "status after "+tc.want, status, tc.status)
	}
}

func TestVerifyLimitsStandardInput(t *testing.T) {
	t.Parallel()
	const endless = `ulimit -v 2000000; yes | verify -sig "$0" -`
	out, errs, status := run(t, "", secret, "sh", "-c", endless, sigOf)
	check(t, endless, out+errs, "-: larger than 2097152 bytes\n")
	check(t, "status", status, 1)
}

func TestVerifyHelp(t *testing.T) {
	t.Parallel()
	out, errs, status := run(t, "", "", "verify", "-h\n")
	check(t, errs, []int{len(out), strings.Count(errs, "\n"), status}, []int{0, 1, 1})
	out, errs, status = run(t, "", "", "verify", "-h")
	const usage = "usage: verify [-sig SIGNATURE] FILE...\n"
	check(t, errs, strings.HasSuffix(errs, usage), true)
	check(t, errs, []int{len(out), strings.Count(errs, "\n"), status}, []int{0, 1, 1})
}

// A failed write prints one line and exits nonzero.
func TestVerifyOutputFails(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	reader, closed, _ := os.Pipe()
	reader.Close()
	defer closed.Close()
	for _, output := range []*os.File{full, closed} {
		var errs strings.Builder
		cmd := command(t, secret, "verify", "-sig", sign(""), "-")
		cmd.Stdout, cmd.Stderr = output, &errs
		cmd.Run()
		check(t, errs.String(), []int{cmd.ProcessState.ExitCode(), strings.Count(errs.String(), "\n")},
			[]int{1, 1})
	}
}

// Hostile files need little time of the CPU and memory, even with two secrets and
// several signatures.
func TestVerifyHostileFiles(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute of the CPU's time")
	}
	bomb := strings.Repeat(compress(strings.Repeat("0", 1<<20)), 300) // 300 MiB
	long := `{"id":"` + strings.Repeat("a", 2_000_000) + `"}`
	for name, body := range map[string]string{
		"bomb":      encode64(bomb),
		"brackets":  strings.Repeat("[", 1_000_000),
		"users":     strings.Repeat(`{"user":`, 900) + long + strings.Repeat("}", 900),
		"fields":    `{"b` + strings.Repeat(`":1,"b`, 300_000) + `":1}`,
		"noise":     strings.Repeat("\xff\x00%", 600_000),
		"escapes":   `{"name":"` + strings.Repeat(`\u00e3\/`, 250_000) + `"}`,
		"backslash": strings.Repeat(`\`, 2_000_000),
		"open":      `"` + strings.Repeat(` %41\u00e3+\r\n\"`, 110_000), // without a closing quote
		"form":      strings.Repeat("%41", 600_000),
		"entities":  strings.Repeat("&quot;", 300_000),
	} {
		sigs := strings.Join(slices.Repeat([]string{sign("0"), sign("1")}, 4), ",")
		limited := `ulimit -v 2000000 && exec verify -sig "$0" -` // KiB; most is unused
		cmd := command(t, secret+",GUURU_SECRET_PREVIOUS=old", "sh", "-c", limited, sigs)
		var out, errs strings.Builder
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(body), &out, &errs
		cmd.Run()
		status := cmd.ProcessState.ExitCode()
		check(t, name+errs.String(), []int{status, strings.Count(out.String(), "\n")}, []int{1, 1})
		used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		check(t, fmt.Sprint(name, " used ", used), used < 10*time.Second, true) // mostly under 5
	}
}
