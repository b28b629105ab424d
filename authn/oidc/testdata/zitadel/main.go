// Command zitadel is the example provider of github.com/zitadel/oidc, for tests. It
// takes the redirect URI as its argument, says on standard output which issuer it
// is, and ends with its standard input. It is a module of its own, so that what it
// needs is nothing that the service needs.
package main

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	issuer := fmt.Sprintf("http://localhost:%d/", listener.Addr().(*net.TCPAddr).Port)
	storage.RegisterClients(
		storage.NativeClient("native", os.Args[1]),
		storage.WebClient("web", "s3cret/+%:&", os.Args[1]),
	)
	handler := exampleop.SetupServer(issuer, storage.NewStorage(storage.NewUserStore(issuer)), slog.New(slog.NewTextHandler(os.Stderr, nil)), false)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println("issuer", issuer)
	log.Fatal(http.Serve(listener, handler))
}
