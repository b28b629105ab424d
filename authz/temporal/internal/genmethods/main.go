// Command genmethods writes the table of the Temporal server's methods to the
// file that its argument names.
package main

import (
	"fmt"
	"os"

	"github.com/sallyport-iam/sallyport/authz/temporal/internal/methods"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: genmethods FILE")
		os.Exit(2)
	}
	source, err := methods.Source()
	if err == nil {
		err = os.WriteFile(os.Args[1], source, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "genmethods:", err)
		os.Exit(1)
	}
}
