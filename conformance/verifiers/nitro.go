// Ask hf/nitrite about an attestation document: nitro FOLDER mine|vendor; exit 0 accepted, 10 refused.
package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hf/nitrite"
)

func main() {
	options := nitrite.VerifyOptions{CurrentTime: time.Now()}
	if os.Args[2] == "mine" {
		options.Roots = x509.NewCertPool()
		if !options.Roots.AppendCertsFromPEM(read("root.pem")) {
			panic("no root certificate")
		}
	}
	if _, err := nitrite.Verify(read("evidence.bin"), options); err != nil {
		fmt.Println(err)
		os.Exit(10)
	}
	fmt.Println("accepted")
}

func read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(os.Args[1], name))
	if err != nil {
		panic(err)
	}
	return data
}
