package examples_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/hmacverify"
)

// idle is longer than ReadTimeout, which counts for an idle connection if there
// is no IdleTimeout.
const idle = 11 * time.Second

func TestIdleConnection(t *testing.T) {
	t.Parallel()
	back := httptest.NewServer(http.NotFoundHandler())
	defer back.Close()
	request, _ := delivery("{}")
	conns, first := map[string]net.Conn{}, map[string]string{}
	for name, args := range map[string][]string{
		"receiver": nil, "gateway": {"-upstream", back.URL}, "inbox": {"-dir", t.TempDir()},
	} {
		conns[name] = write(t, start(t, []string{secret}, name, args...).addr, request)
		first[name] = read(t, conns[name])
	}
	time.Sleep(idle)
	for name, conn := range conns {
		io.WriteString(conn, request)
		if got := read(t, conn); got != first[name] {
			t.Errorf("%s: got %q after %v, want %q", name, got, idle, first[name])
		}
	}
}

// Its paths are relative to the option -p.
const nginxConfig = `
daemon off; master_process off; pid pid; error_log stderr; events {}
http {
	access_log off; client_body_temp_path body; proxy_temp_path proxy;
	fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	upstream pool { server %[3]s; keepalive 1; }
	server {
		listen %[1]s;
		location /http1.0 { proxy_pass http://%[2]s; proxy_http_version 1.0; }
		location /chunks { proxy_pass http://%[2]s; proxy_request_buffering off; }
		location /pool { proxy_pass http://pool; }
	}
}
`

func TestNginx(t *testing.T) {
	t.Parallel()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx" // is not in every PATH
	}
	if _, err := os.Stat(nginx); err != nil {
		t.Skip("nginx is not installed")
	}
	rc, _ := hmacverify.New("secr3t")
	echo := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	protocols := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocols <- fmt.Sprint(r.Proto, r.TransferEncoding)
		echo.ServeHTTP(w, r)
	}))
	defer server.Close()
	receiver := start(t, []string{secret}, "receiver")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()

	addr, dir := free.Addr().String(), t.TempDir()
	config := fmt.Sprintf(nginxConfig, addr, server.Listener.Addr(), receiver.addr)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-c", "nginx.conf")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
		if time.Since(begin) > patience {
			t.Fatal("nginx does not listen")
		}
	}
	body, sig := documented(t, 3)
	forged := strings.Repeat("0", 64)
	post := func(path, sig, want string) {
		t.Helper()
		// nginx sends chunks only if the body arrives after the header.
		header := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nX-Guuru-Hmac-Sha256: %s\r\nTransfer-Encoding: chunked\r\n\r\n", path, sig)
		conn := write(t, addr, header)
		time.Sleep(100 * time.Millisecond)
		fmt.Fprintf(conn, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		if got := read(t, conn); !strings.HasPrefix(got, want[:3]) || !strings.HasSuffix(got, want[4:]) {
			t.Errorf("%s, signed with %q: got %q, want %q", path, sig, got, want)
		}
	}
	for path, protocol := range map[string]string{"/http1.0": "HTTP/1.0[]", "/chunks": "HTTP/1.1[chunked]"} {
		for sig, want := range map[string]string{sig: "200 " + body, forged: mismatch, "": mismatch} {
			post(path, sig, want)
			if got := <-protocols; got != protocol {
				t.Errorf("%s: the receiver got %v, want %v", path, got, protocol)
			}
		}
	}

	// The log has the connection of a rejected request.
	post("/pool", forged, mismatch)
	time.Sleep(idle)
	post("/pool", sig, "200 Success!")
	post("/pool", "0", mismatch)
	receiver.waitForLog(t, "malformed signature")
	from := regexp.MustCompile(`from=127\.0\.0\.1:\d+`).FindAllString(receiver.logged(), -1)
	if len(from) != 2 || from[0] != from[1] {
		t.Errorf("nginx's connections are %q, want the same twice\n%s", from, receiver.logged())
	}
}
