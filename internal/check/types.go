package check

// types is the one list of configured check types, in the order of the documentation: a new one is a
// variable in its protocol's file and a line here.
var types = []Type{
	tcpType,
	tlsType,
	udpType,
	httpType,
	grpcType,
	udpListenType,
	scriptType,
	amqpType,
	postgresType,
	mysqlType,
	redisType,
	sentinelType,
	memcacheType,
	mongodbType,
	smtpType,
	haproxyType,
}
