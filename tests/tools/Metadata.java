import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/**
 * Asks what DBeaver, Metabase and other tools on JDBC ask when they connect: the driver's own
 * metadata, then rows with and without a cursor. Prints one line an answer. The URL and the
 * password are in the environment.
 */
public class Metadata {
    interface Question {
        ResultSet ask() throws SQLException;
    }

    public static void main(String[] arguments) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "bench");
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("ApplicationName", "DBeaver - Main <postgres>");
        try (Connection connection = DriverManager.getConnection(System.getenv("JDBC"), properties)) {
            DatabaseMetaData data = connection.getMetaData();
            System.out.println("version " + data.getDatabaseProductVersion());
            System.out.println("keywords " + data.getSQLKeywords().length());
            System.out.println("longest name " + data.getMaxColumnNameLength());
            tell("schemas", data::getSchemas);
            tell("catalogs", data::getCatalogs);
            tell("table types", data::getTableTypes);
            tell("types", data::getTypeInfo);
            tell("tables", () -> data.getTables(null, "public", "%", null));
            tell("all tables", () -> data.getTables(null, null, "%", new String[] {"TABLE", "VIEW"}));
            tell("columns", () -> data.getColumns(null, "public", "%", "%"));
            tell("primary keys", () -> data.getPrimaryKeys(null, "public", "pgbench_accounts"));
            tell("imported keys", () -> data.getImportedKeys(null, "public", "pgbench_accounts"));
            tell("exported keys", () -> data.getExportedKeys(null, "public", "pgbench_accounts"));
            tell("indexes", () -> data.getIndexInfo(null, "public", "pgbench_accounts", false, true));
            tell("best row", () -> data.getBestRowIdentifier(null, "public", "pgbench_accounts", 1, true));
            tell("privileges", () -> data.getTablePrivileges(null, "public", "%"));
            tell("column privileges", () -> data.getColumnPrivileges(null, "public", "pgbench_tellers", "%"));
            tell("functions", () -> data.getFunctions(null, "pg_catalog", "a%"));
            tell("procedures", () -> data.getProcedures(null, null, "%"));
            tell("parameters", () -> data.getFunctionColumns(null, "pg_catalog", "abs", "%"));
            tell("user types", () -> data.getUDTs(null, null, "%", null));
            tell("client properties", data::getClientInfoProperties);
            connection.setReadOnly(true);
            connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            connection.setAutoCommit(false);
            try (PreparedStatement rows = connection.prepareStatement(
                    "select aid, bid, abalance from pgbench_accounts where bid = ? order by aid limit 500")) {
                rows.setFetchSize(100);
                // From the fifth run on the driver names the statement and asks for binary values.
                for (int bid = 1; bid <= 8; bid++) {
                    rows.setInt(1, bid);
                    tell("rows of branch " + bid, rows::executeQuery);
                }
            }
            connection.commit();
        }
    }

    /** Names of the columns, and how many rows there are. */
    static void tell(String what, Question question) {
        try (ResultSet rows = question.ask()) {
            ResultSetMetaData about = rows.getMetaData();
            List<String> columns = new ArrayList<>();
            for (int column = 1; column <= about.getColumnCount(); column++) {
                columns.add(about.getColumnName(column) + ":" + about.getColumnTypeName(column));
            }
            int count = 0;
            while (rows.next()) {
                for (int column = 1; column <= about.getColumnCount(); column++) {
                    rows.getString(column);
                }
                count++;
            }
            System.out.println(what + ": " + count + " rows of " + columns);
        } catch (SQLException error) {
            System.out.println(what + ": " + error.getSQLState() + " " + error.getMessage());
        }
    }
}
