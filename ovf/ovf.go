// Package ovf writes, reads and checks virtual appliances.
package ovf
