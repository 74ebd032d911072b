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
	const raw = "; verify the raw bytes, before JSON is parsed and written again"
	const was = "the body was rewritten "
	const escapes = was + "with escapes that JSON does not need"
	const order = was + "with its fields in another order"
	event := `[{"headers": {}, "body": ` + strconv.Quote(chat) + `}]`
	for _, tc := range []struct{ body, signed, want string }{
		{encode64(chat) + "\n", chat, "the body is Base64"},
		{base64.RawURLEncoding.EncodeToString([]byte(chat)), chat, "the body is Base64"},
		{compress(chat), chat, "the body is gzip"},
		{fmt.Sprintf("%X\n%x\n", chat[:30], chat[30:]), chat, "the body is in hex"},
		{url.PathEscape(chat), chat, "the body is percent-encoded, as in a form"},
		{url.QueryEscape(chat) + "=", chat, "the body is in a form"},
		{"a=b&payload=" + url.QueryEscape(chat) + "&c=d", chat, "the body is in a form"},
		{strconv.Quote(chat), chat, "the body is a JSON string"},
		{swap(chat, `\`, `\\`, `"`, `\"`), chat, "the body has backslashes before quotes"},
		{swap(chat, `"`, `\"`), chat, "the body has backslashes before quotes"},
		{event, chat, "the body is inside a JSON event"},
		{`{"body":` + chat + `}`, chat, "the body is inside a JSON event"},
		{"HTTP/1.1 200 OK\r\nA: b\r\n\r\n" + chat, chat, "the body has HTTP headers before it"},
		{html.EscapeString(chat), chat, "the body has HTML entities"},
		{"\ufeff" + chat, chat, "the body begins with a byte order mark"},
		{mojibake, chat, "the body is UTF-8 that was read as Latin-1 or Windows-1252"},
		{mojibake1252, chat, "the body is UTF-8 that was read as Latin-1 or Windows-1252"},
		{swap(latin1, "ã", "\xe3", "–", "\x96"), latin1, "the body is in Latin-1 or Windows-1252"},
		{utf16LE(chat), chat, "the body is in UTF-16"},
		{"\xfe\xff\x00{\x00}", "{}", "the body is in UTF-16"},
		{"{\x00}\x00", "{}", "the body is in UTF-16"},
		{chat + "\r\n", chat, "the body has a line break added at its end"},
		{lines, lines + "\n", "the body lost the line break at its end"},
		{swap(lines, "\n", "\r\n"), lines, "the body has CRLF in place of LF"},
		{"2026-11-27 {info} body=" + chat + "%", chat, "the body has other text around it"},
		{"8d\r\n" + chat + "\r\n0\r\n\r\n", chat, "the body has other text around it"},
		{spaced, chat, was + "with spaces or line breaks outside strings" + raw},
		{escaped, chat, escapes + raw},
		{sorted, chat, order + raw},
		{`{"rating":1,"user":{"isLead":true,"locale":"en"}}`,
			`{"user":{"isLead":true,"locale":"en"},"rating":1}`, order + raw},
		{`{"rating":1,"user":{"isLead":true,"locale":"en"}}`,
			`{"user":{"locale":"en","isLead":true},"rating":1}`, order + raw},
		{swap(chat, "/", `\/`), chat, escapes + raw},
		{swap(chat, `""`, `null`), chat, was + "with null in place of empty strings" + raw},
		{swap(chat, `"email":"",`, ""), chat, was + "without its empty email" + raw},

		{encode64(encode64(chat)), chat, "the body is Base64; the body is Base64"},
		{encode64(compress(chat)), chat, "the body is Base64; the body is gzip"},
		{encode64("\ufeff" + chat), chat, "the body is Base64; the body begins with a byte order mark"},
		{python, chat, was + "with spaces or line breaks outside strings; " +
			was + "with escapes that JSON does not need; " + order + raw},
		{"body: " + swap(sorted, `""`, `null`), chat, "the body has other text around it; " +
			order + "; " + was + "with null in place of empty strings" + raw},
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
	const affixed = "the signature has a prefix, quotes, or spaces around it"
	const several = "the signature is one of several, joined by a comma"
	const decoded = "was decoded from %s, though Guuru signs with the text"
	for _, tc := range []struct{ secret, signedWith, sig, want string }{
		{"secr3t\r\n", "secr3t", "", is + "ends with a line break"},
		{" secr3t\t", "secr3t", "", is + "has spaces around it"},
		{"\u200bsecr3t\ufeff", "secr3t", "", is + "has invisible characters around it"},
		{`"secr3t"`, "secr3t", "", is + "has quotes around it"},
		{"“secr3t”", "secr3t", "", is + "has quotes around it"},
		{"secr3t # of 2026", "secr3t", "", is + "has a comment after it"},
		{"GUURU_SECRET=secr3t", "secr3t", "", is + "begins with a variable's name"},
		{"pa$$word", "pa$word", "", is + "has $$ in place of $"},
		{`pa\$w\!rd`, "pa$w!rd", "", is + "has backslashes before characters"},
		{"a&amp;b", "a&b", "", is + "has HTML entities"},
		{encode64("secr3t"), "secr3t", "", is + "is Base64"},
		{"73656372 3374", "secr3t", "", is + "is in hex"},
		{"secr%33t+", "secr3t+", "", is + "is percent-encoded"},
		{"secr3t", encode64("secr3t"), "", is + fmt.Sprintf(decoded, "Base64")},
		{"secr3t", "736563723374", "", is + fmt.Sprintf(decoded, "hex")},

		{encode64("secr3t\n"), "secr3t", "", is + "is Base64; " + is + "ends with a line break"},
		{`export GUURU_SECRET="secr3t"`, "secr3t", "",
			is + "begins with a variable's name; " + is + "has quotes around it"},

		{"secr3t", "secr3t", strings.ToUpper(sigOf), "the signature is in upper case"},
		{"secr3t", "secr3t", "sha256=" + sigOf,
			affixed},
		{"secr3t", "secr3t", `["` + sigOf + "\"]\n",
			affixed},
		{"secr3t", "secr3t", "X-Guuru-Hmac-Sha256: " + sigOf,
			affixed},
		{"secr3t", "secr3t", "0x" + sigOf, affixed},
		{"secr3t", "secr3t", sigOf[:2] + "-" + sigOf[2:],
			"the signature has dashes, colons, or spaces between its digits"},
		{"secr3t", "secr3t", sigOf + ", " + sign("{}"), several},
		{"secr3t", "secr3t", sign("{}") + ", " + sigOf, several},
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
		another = "another secret (a shell or compose may have cut it at $ or #), or another body"
		notJSON = "the body is not JSON: something was added, cut, or encoded"
		form    = "the signature has %d characters, not 64 hex digits"
	)
	for _, tc := range []struct{ body, secret, sig, want string }{
		{"\n", "secr3t", sigOf, "the body is empty: something consumed it"},
		{chat[:99], "secr3t", sigOf, "the body is truncated: it ends before its JSON does"},
		{swap(chat, "ã", "\ufffd"), "secr3t", sigOf,
			"the body has U+FFFD, where decoding it as text lost bytes"},
		{chat + chat, "secr3t", sigOf, notJSON},
		{chat, "${SECRET}", sigOf, "GUURU_SECRET looks like a variable that was not " +
			"expanded (what a shell or compose cuts from $ or # on cannot be recovered)"},
		{chat, "secr3t", sigOf[:40], fmt.Sprintf(form, 40)},
		{chat, "secr3t", sigOf + "0", fmt.Sprintf(form, 65)},

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
	broken := put("a\n\x1b-"+sig, "{}")
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
				kept + fix + "the body has a line break added at its end\n" + stored + ": valid\n", 1},
		{[]string{dir, fifo, os.DevNull, large}, secret,
			dir + irregular + fifo + irregular + os.DevNull + irregular + large + irregular, 1},
		{[]string{broken}, secret, dir + `/a\n\x1b-` + sig + ": valid\n", 0},
	} {
		out, errs, status := run(t, "", tc.env, "verify", tc.files...)
		check(t, fmt.Sprint(tc.files), out+errs, tc.want)
		check(t, "status after "+tc.want, status, tc.status)
	}
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

// Hostile files need little time and memory, even with two secrets and three
// signatures.
func TestVerifyHostileFiles(t *testing.T) {
	t.Parallel()
	if underRace() {
		t.Skip("the race detector takes more than a minute for them")
	}
	bomb := strings.Repeat(compress(strings.Repeat("0", 1<<20)), 300) // 300 MiB
	fields := `"b` + strings.Repeat(`":1,"b`, 300_000) + `":1`
	for name, body := range map[string]string{
		"bomb":      bomb,
		"Base64":    encode64(bomb),
		"brackets":  strings.Repeat("[", 1_000_000),
		"nested":    strings.Repeat(`{"user":`, 9_999) + "1" + strings.Repeat("}", 9_999),
		"fields":    "{" + fields + "}",
		"noise":     strings.Repeat("\xff\x00%", 600_000),
		"escapes":   `{"name":"` + strings.Repeat(`\u00e3\/`, 250_000) + `"}`,
		"backslash": strings.Repeat(`\`, 2_000_000),
		"open":      `"` + strings.Repeat(` %41\u00e3+\r\n\"`, 110_000), // without a closing quote
		"form":      strings.Repeat("%41", 600_000),
		"entities":  strings.Repeat("&quot;", 300_000),
	} {
		sigs := strings.Join([]string{sign("0"), sign("1"), sign("2")}, ",")
		limited := `ulimit -v 2000000 && exec verify -sig "$0" -` // KiB; most is unused
		begin := time.Now()
		out, errs, status := run(t, body, secret+",GUURU_SECRET_PREVIOUS=old", "sh", "-c", limited, sigs)
		check(t, name+errs, []int{status, strings.Count(out, "\n"), len(errs)}, []int{1, 1, 0})
		check(t, name+" in time", time.Since(begin) < 20*time.Second, true)
	}
}
