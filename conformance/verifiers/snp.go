// Ask google/go-sev-guest about a report: snp FOLDER mine|vendor; exit 0 accepted, 10 refused.
package main

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
)

func main() {
	chain := certificates("chain.pem")
	roots := trust.DefaultRootCerts["Genoa"]
	if os.Args[2] == "mine" {
		roots = trust.AMDRootCertsProduct("Genoa")
		stop(roots.Decode(chain[1], certificates("root.pem")[0]))
	}
	report, err := abi.ReportToProto(read("evidence.bin"))
	stop(err)
	options := verify.DefaultOptions()
	options.DisableCertFetching = true
	options.TrustedRoots = map[string][]*trust.AMDRootCerts{"Genoa": {roots}}
	stop(verify.SnpAttestation(&sevsnp.Attestation{
		Report:           report,
		CertificateChain: &sevsnp.CertificateChain{VcekCert: chain[0], AskCert: chain[1], ArkCert: chain[2]},
	}, options))
	fmt.Println("accepted")
}

func certificates(name string) (found [][]byte) {
	for block, rest := pem.Decode(read(name)); block != nil; block, rest = pem.Decode(rest) {
		found = append(found, block.Bytes)
	}
	return found
}

func read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(os.Args[1], name))
	if err != nil {
		panic(err)
	}
	return data
}

func stop(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(10)
	}
}
