package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/hmacverify"
)

const nginxConfig = `
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		location /http1.0 {
			proxy_pass http://%[3]s;
			proxy_http_version 1.0;
		}
		location /chunks {
			proxy_pass http://%[3]s;
			proxy_http_version 1.1;
			proxy_request_buffering off;
		}
	}
}
`

func TestNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx"
	}
	if _, err := os.Stat(nginx); err != nil {
		t.Skip("no nginx")
	}
	arrived := make(chan string, 1)
	rc := newReceiver(t)
	receiver := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := hmacverify.PayloadFrom(r.Context())
		if err != nil {
			t.Error(err)
		}
		io.WriteString(w, p.Question)
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- fmt.Sprint(r.Proto, r.TransferEncoding)
		receiver.ServeHTTP(w, r)
	}))
	defer server.Close()

	dir := t.TempDir()
	host, port := freePort(t)
	addr := net.JoinHostPort(host, port)
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, dir, addr, server.Listener.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-c", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %s", log.String())
		}
	}

	body, sig := documented(t, "3")
	const rejected = "400 Invalid request, non-matching HMAC-SHA256 received"
	for _, tc := range []struct{ path, body, sig, want string }{
		{"/http1.0", body, sig, "200 hello 123"},
		{"/http1.0", body, strings.Repeat("0", 64), rejected},
		{"/http1.0", body, "", rejected},
		{"/chunks", body, sig, "200 hello 123"},
		{"/chunks", body, strings.Repeat("0", 64), rejected},
		{"/chunks", body, "", rejected},
	} {
		r := newRequest(t, "http://"+addr+tc.path, tc.body)
		want := "HTTP/1.0[]"
		if tc.path == "/chunks" {
			// nginx sends chunks only if the body arrives after the header.
			body, w := io.Pipe()
			go func() {
				io.WriteString(w, tc.body[:100])
				time.Sleep(100 * time.Millisecond)
				io.WriteString(w, tc.body[100:])
				w.Close()
			}()
			r.Body, r.ContentLength = body, -1
			want = "HTTP/1.1[chunked]"
		}
		if tc.sig != "" {
			r.Header.Set("X-Guuru-Hmac-Sha256", tc.sig)
		}
		if got := do(t, r); got != tc.want {
			t.Errorf("%s, signed with %q: got %q, want %q", tc.path, tc.sig, got, tc.want)
		}
		if got := <-arrived; got != want {
			t.Errorf("%s: the receiver got %v, want %v", tc.path, got, want)
		}
	}
}
