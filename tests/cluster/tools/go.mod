// Small programs of the development cluster. The standard library is enough for all of them.
module annulus.dev/tests/cluster/tools

go 1.24
