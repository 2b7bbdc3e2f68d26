package check

// types is the one list of configured check types, in the order of the documentation: a new one is a
// variable in its protocol's file and a line here.
var types = []Type{
	tcpType,
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
